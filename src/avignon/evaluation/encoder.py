"""The learned image encoder that a recipe names, whose distances the report shows as one more aspect of style."""

from avignon.core.events import Reporter
from avignon.models import hub, image_encoder
from avignon.recipe.schema import Evaluate


def load(settings: Evaluate, reporter: Reporter) -> image_encoder.ImageEncoder:
    """Find, check and load it; messages name the recipe's fields.

    Raises:
        ModelError: it is unavailable, incomplete, damaged, pickled, or of an architecture that is not supported.
    """
    wanted = hub.Wanted(
        settings.encoder,
        settings.encoder_mirrors,
        settings.encoder_revision,
        "evaluate.encoder",
        "evaluate.encoder_mirrors",
    )
    return image_encoder.load(wanted, reporter)
