"""``evlgen serve``: the page on this machine."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from lavis_evlgen.errors import ConfigError


def serve(args: argparse.Namespace) -> int:
    """Load the models, then show the page until interrupted.

    Raises:
        ConfigError: NiceGUI is not installed, the port is in use, an unknown model, or a limit that lets nothing in.
        WeightsError: weights are missing.
    """
    if not find_spec("nicegui"):
        raise ConfigError("the page needs NiceGUI, which is not installed; run: pip install nicegui")
    for name in ("max_mb", "max_seconds"):
        if not getattr(args, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name):g}: must be more than 0")
    from lavis_evlgen.page import app
    from lavis_evlgen.page.callers import CallersLimit, is_local
    from lavis_evlgen.page.captioner import Captioner
    from lavis_evlgen.page.served import load_served
    from lavis_evlgen.page.uploads import Limits
    from lavis_evlgen.page.view import add_page

    at = app.listen(args.host, args.port)
    print("loading …", flush=True)
    captioner = Captioner(load_served(args), Limits(args.max_mb, seconds=args.max_seconds), args.prompt)
    captioner.warm_up()
    server = app.build_app(captioner)
    server.add_middleware(CallersLimit, local=is_local(at.getsockname()[0]), names=args.allow_host)
    add_page(server, captioner)
    try:
        app.serve(server, at)
    except KeyboardInterrupt:
        print("the page has ended")
    finally:
        captioner.close()
    return 0
