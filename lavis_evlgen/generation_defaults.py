"""How captions and answers are generated where nobody says otherwise, by commands and on the page."""

QUESTION_PROMPT = "Question: {} Short answer:"  # {} is the question
NUM_BEAMS = 5
CAPTION_LENGTH, ANSWER_LENGTH = 30, 10  # most new tokens
