"""A text prompt: the phrases that a detector is to look for, where it is told so in words."""

from collections.abc import Sequence


def phrases_in(prompt: str | Sequence[str]) -> tuple[str, ...]:
    """The phrases of a prompt, each of which is a category: a sequence, or one text that points or else commas part.

    Raises:
        ValueError: there is none, or one stands twice.
    """
    if isinstance(prompt, str):
        prompt = prompt.split("." if "." in prompt else ",")
    phrases = tuple(phrase.strip() for phrase in prompt if phrase.strip())
    if not phrases:
        raise ValueError("the prompt is empty; expected phrases, such as 'cat. traffic light.'")
    twice = next((phrase for phrase in phrases if phrases.count(phrase) > 1), None)
    if twice is not None:
        raise ValueError(f"the prompt has {twice!r} twice; name every category once")
    return phrases
