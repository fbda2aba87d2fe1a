"""How texts are generated and questions asked where nobody says otherwise: commands, page, new projects."""

from lavis_evlgen.errors import ConfigError

NUM_BEAMS = 5
CAPTION_LENGTH, ANSWER_LENGTH = 30, 10  # most new tokens
QUESTION_PROMPT = "Question: {} Short answer:"  # {} is the question


def is_question_prompt(text: object) -> bool:
    """Whether a text has one place for a question, {}, and no other brace."""
    return isinstance(text, str) and (text.count("{}"), text.count("{"), text.count("}")) == (1, 1, 1)


def check_question_prompt(given: str | None) -> None:
    """Raise ConfigError for an option --prompt that is given and has no such place."""
    if given is not None and not is_question_prompt(given):
        raise ConfigError(f"--prompt {given!r} must hold {{}} once, where the question goes, and no other brace")
