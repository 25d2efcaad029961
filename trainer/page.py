"""A page as one HTML file: no network, no outside file, and only the script that comes along, told by its hash."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from manifests.files import write_text
from trainer import wording
from trainer.glossary import link_words

TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, template: str, **shown: Any) -> None:
    """Fill a template, `NAME.html.j2`, with what it shows and write it; the same content gives the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=wording.in_hundred, figure=wording.number, plural=wording.plural)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(f"{template}.html.j2")
    write_text(path, link_words(page.render(script=Markup(script), script_hash=f"sha256-{digest}", **shown)))
