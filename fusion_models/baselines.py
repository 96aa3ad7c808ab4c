"""Systems without cross-modal attention: one modality alone, and concatenation (004 Tab. II and IV).

No table has text alone: it is our reading of the text branch of 002.
"""

from crossfold.fusion_models.blocks.readout import LastReadout
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import System
from crossfold.platform.core.base_model import FrozenModel


class NoParams(FrozenModel):
    """Nothing to choose."""


def _plain(
    name: str, title: str, equations: str, modalities: tuple[str, ...], source: str = "004 Tab. II and IV"
) -> System:
    return register(
        System(
            name=name,
            title=title,
            source=source,
            equations=equations,
            bibtex=citation("praveen2021ca"),
            modalities=modalities,
            params=NoParams,
            readout=lambda params, widths, steps: LastReadout(widths),
            context=lambda params: 0,
        )
    )


UNIMODAL_AUDIO = _plain("unimodal_audio", "Audio alone", "Z = X_a", ("audio",))
UNIMODAL_VISUAL = _plain("unimodal_visual", "Video alone", "Z = X_v", ("visual",))
UNIMODAL_TEXT = _plain("unimodal_text", "Text alone", "Z = X_t", ("text",), "our reading of the text branch of 002")
CONCAT = _plain("concat", "Feature concatenation", "Z = [X_a ; X_v]", ("audio", "visual"))
