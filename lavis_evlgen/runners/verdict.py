"""What a run's figures say about it: signs of trouble, each told once with likely reasons and what to do."""

from collections.abc import Callable, Mapping
from typing import Any

Figures = Mapping[str, float]

LEAST_GAP = 0.05  # nats a token
COLLAPSED = 1e-4  # prompt_diversity: collapsed runs were measured at 4e-7, one with a gap of 0.15 still at 1e-3
MOST_REPEATED = 0.5  # share of captions, beyond the share of references
MOST_NGRAMS = 0.2  # share of word triples
PATIENCE = 2  # checks in a row

# by sign: the figure that it is read from, and whether the figures speak for it
SIGNS: dict[str, tuple[str, Callable[[Figures], bool]]] = {
    "ignored": ("gap", lambda found: found["gap"] < LEAST_GAP),
    "repeated": (
        "repeated_captions",
        lambda found: found["repeated_captions"] - found.get("repeated_references", 0.0) > MOST_REPEATED,
    ),
    "looping": ("repeated_ngrams", lambda found: found["repeated_ngrams"] > MOST_NGRAMS),
}


class Verdict:
    """The signs that a run shows. A sign appears, or goes again, when PATIENCE checks in a row say so.

    Attributes:
        signs: those present, of SIGNS.
    """

    def __init__(self, warmup: int) -> None:
        """``warmup``: the step from which figures are judged."""
        self.warmup = warmup
        self.signs: list[str] = []
        self._against = dict.fromkeys(SIGNS, 0)  # checks in a row that contradict what `signs` says
        self._figures: dict[str, float] = {}

    def note(self, iters: int, figures: Mapping[str, Any]) -> list[str]:
        """Take the figures of a check at step ``iters``; a text to warn with for every sign that appears by them."""
        self._figures |= {key: float(value) for key, value in figures.items() if key in _JUDGED}
        warnings = []
        for sign, (key, speaks_for) in SIGNS.items():
            if key not in figures or iters < self.warmup:
                continue
            present = sign in self.signs
            self._against[sign] = self._against[sign] + 1 if speaks_for(self._figures) != present else 0
            if self._against[sign] < PATIENCE:
                continue
            self._against[sign] = 0
            if present:
                self.signs.remove(sign)
            else:
                self.signs.append(sign)
                warnings.append(f"step {iters}: {TEXTS[sign](self._figures)}")
        return warnings

    def state_dict(self) -> dict[str, Any]:
        return {"signs": list(self.signs), "against": dict(self._against), "figures": dict(self._figures)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up :meth:`state_dict`; an empty one, of older checkpoints, starts afresh."""
        self.signs = [sign for sign in state.get("signs", ()) if sign in SIGNS]
        self._against = {sign: int(state.get("against", {}).get(sign, 0)) for sign in SIGNS}
        self._figures = dict(state.get("figures", {}))


_JUDGED = ("gap", "prompt_diversity", "repeated_captions", "repeated_references", "repeated_ngrams")


def _ignored(found: Figures) -> str:
    text = (
        f"held-out loss is the same with wrong pictures (gap {found['gap']:.3f} nats, {PATIENCE} checks in a row): the "
        "model writes its captions without looking."
    )
    diversity = found.get("prompt_diversity")
    if diversity is None:
        text += (
            " Usual reasons: a learning rate that is too high for the connector (lower run.init_lr), pictures that do "
            "not belong to their captions (compare some rows of the annotations), or too few steps so far."
        )
    elif diversity < COLLAPSED:
        text += (
            f" The language model gets nearly the same soft prompt for every picture (prompt_diversity {diversity:.2g})"
            ", so what is wrong comes before it. Usual reasons: a learning rate that is too high for the connector "
            "(lower run.init_lr, lengthen run.warmup_steps, set run.max_grad_norm: 1.0), or pictures that arrive all "
            "alike (the folder of pictures, the ViT's weights, run.feature_cache)."
        )
    else:
        text += (
            f" The soft prompts do differ from picture to picture (prompt_diversity {diversity:.2g}), but the language "
            "model makes no use of them. Usual reasons: too few steps so far, pictures that do not belong to their "
            "captions (compare some rows of the annotations), or captions that can be guessed without a picture."
        )
    if SIGNS["repeated"][1]({"repeated_captions": 0.0, **found}):
        text += f" Of the validation captions {found['repeated_captions']:.0%} are those of other pictures too."
    return text


def _repeated(found: Figures) -> str:
    text = (
        f"{found['repeated_captions']:.0%} of the validation captions are those of other pictures too (of the "
        f"references {found.get('repeated_references', 0.0):.0%}): the model has few sentences for many pictures."
    )
    if found.get("gap", LEAST_GAP) < LEAST_GAP:
        return f"{text} It does not look at them: the loss is the same with wrong pictures (gap {found['gap']:.3f})."
    return (
        f"{text} This is usual early in training; if it stays, read result/*_epoch*.json. Usual reasons: too few or "
        "too similar training captions, too few soft prompt tokens (model.tome_r, model.num_query_token), too low a "
        "learning rate."
    )


def _looping(found: Figures) -> str:
    return (
        f"{found['repeated_ngrams']:.0%} of the word triples of the validation captions stood in the same caption "
        "before: the captions run in circles. This is usual early in training; if it stays, set run.repetition_penalty "
        "(1.2 to 1.5), lower run.min_len and run.max_len, and check that training captions end (model.llm_end)."
    )


TEXTS: dict[str, Callable[[Figures], str]] = {"ignored": _ignored, "repeated": _repeated, "looping": _looping}
