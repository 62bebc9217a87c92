"""Generated tables between markers in Markdown: <!-- name --> ... <!-- /name -->."""

import re
import sys
from pathlib import Path


def replace_block(document: Path, marker: str, block: str) -> None:
    """Puts `block` between the markers of that name, which must be there."""
    text = document.read_text(encoding="utf-8")
    pattern = rf"<!-- {marker} -->.*?<!-- /{marker} -->"
    if not re.search(pattern, text, re.DOTALL):
        sys.exit(f"{document} has no <!-- {marker} --> ... <!-- /{marker} -->.")
    new = f"<!-- {marker} -->\n{block}\n<!-- /{marker} -->"
    document.write_text(
        re.sub(pattern, lambda _: new, text, flags=re.DOTALL), encoding="utf-8"
    )
    print(new)
