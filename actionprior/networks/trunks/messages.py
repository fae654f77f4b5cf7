"""Parts of errors' sentences."""

from difflib import get_close_matches


def near_matches(name: str, known: list[str]) -> str:
    """What an unknown name may have meant, to end an error's sentence with."""
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    return f"; near are {', '.join(near)}" if near else "; it has none"


def in_brief(error: Exception) -> str:
    """An error's message on one line, cut short."""
    return " ".join(str(error).split())[:200] or type(error).__name__
