"""What a training command refuses within a second or two: wrong paths, before torch and its like are imported."""

from finetune.corpora.cached import check_place
from finetune.options import TrainOptions
from pretrain.starter import check_starter, starter_lm
from pretrain.text_models import check_encoder, resolve_text_model
from skesl_mug.console import check_writable


def check_places(options: TrainOptions) -> None:
    """Look at --data, --encoder or --lm, and --output; what lies on a hub or an object store is left to the reading.

    Raises:
        UserError: one of them is not what it has to be.
    """
    check_place(options.data)
    starter = starter_lm(options.encoder) if options.encoder is not None else None
    if starter is not None:
        check_starter(starter)
    elif options.encoder is not None:
        check_encoder(options.encoder)
    else:
        resolve_text_model(str(options.lm))
    check_writable(options.output)
