"""The schema of the views, declared once: Spark, petastorm and the readers all take it from here."""

from __future__ import annotations

import numpy as np
from petastorm.codecs import CompressedImageCodec, ScalarCodec
from petastorm.unischema import Unischema, UnischemaField
from pyspark.sql.types import ByteType, FloatType, StringType

from galaxyspark.galaxyzoo.tree import VOTE_FIELDS


def views_schema(view_size_px: int, jpeg_quality: int) -> Unischema:
    """One row a view.

    ``galaxy_id`` text; ``view`` 0-15; ``label`` the class's name; ``Class1_1`` ... ``Class11_6`` vote shares in [0, 1],
    null where labels came without votes; ``image`` a JPEG that petastorm decodes to uint8 RGB of shape
    (size, size, 3); ``split`` train, validation or test, the column by which the files are partitioned.
    """
    text, votes = ScalarCodec(StringType()), ScalarCodec(FloatType())
    image_codec = CompressedImageCodec("jpeg", quality=jpeg_quality)
    return Unischema(
        "Views",
        [
            UnischemaField("galaxy_id", np.str_, (), text, False),
            UnischemaField("view", np.int8, (), ScalarCodec(ByteType()), False),
            UnischemaField("label", np.str_, (), text, False),
            *(UnischemaField(name, np.float32, (), votes, True) for name in VOTE_FIELDS.values()),
            UnischemaField("image", np.uint8, (view_size_px, view_size_px, 3), image_codec, False),
            UnischemaField("split", np.str_, (), text, False),
        ],
    )
