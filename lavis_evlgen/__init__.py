"""EVLGen for LAVIS: importing this package registers its models, data sets, processors, tasks and runner."""

from lavis_evlgen.registration import register_all

register_all()

from lavis_evlgen.loading import load_model_and_preprocess  # noqa: E402

__all__ = ["load_model_and_preprocess"]
__version__ = "0.1.0"
