"""Griffe extension for the API reference: shows doctests in a docstring as code."""

import re
from typing import Any

from griffe import Extension, Object


class Doctests(Extension):
    """Fences paragraphs that start with `>>>`, which Markdown would read as quotes."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None and ">>> " in obj.docstring.value and "Example" not in obj.docstring.value:
            examples = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", flags=re.MULTILINE | re.DOTALL)
            obj.docstring.value = examples.sub(lambda found: f"```python\n{found[0]}\n```", obj.docstring.value)
