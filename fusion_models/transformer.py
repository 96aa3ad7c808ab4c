"""Transformer encoder over concatenated tokens, the fusion of the ABAW rivals on our backbones: our reading.

A token is a frame: the concatenation of its modalities, mapped to a common width, with sinusoidal positions. Read: 002
sec. 2 ("transformers to encode the concatenated version of the feature representations"), the abstract of Zhang 2023.
"""

from crossfold.fusion_models.blocks.transformer import EncoderReadout, TransformerParams, attention_context
from crossfold.fusion_models.catalogue import citation, register
from crossfold.fusion_models.system import ModalityParams, System, combined, part

TRANSFORMER = register(
    System(
        name="transformer",
        title="Transformer encoder on concatenated tokens",
        source="our reading of the ABAW rivals (Zhang 2023)",
        equations="""\
S_l = W [X_a ; X_v (; X_t)]_l + p_l                       our reading  p sinusoidal
Z = Block^layers(S), Block(s) = LayerNorm(y + FFN(y)), y = LayerNorm(s + MHA(s, s))""",
        bibtex=citation("zhang2023abaw5"),
        params=combined("TransformerSystemParams", TransformerParams, ModalityParams),
        readout=lambda params, widths, steps: EncoderReadout(part(TransformerParams, params), widths),
        context=attention_context,
    )
)
