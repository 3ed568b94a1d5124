"""TFRecord files: one `tf.train.Example` a review with the features `idx`, `sentence` and `label`.

`idx` is the row's number in its CSV, `sentence` the raw text in UTF-8, `label` the index of its label. A rating that
lies between two labels has its own number as `rating`.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer.data import LabelledReview
from trainer.errors import DataError
from trainer.folders import system_words

READ_AT_ONCE = 1024
"""Reviews parsed in one call."""


def write_records(path: Path, reviews: Iterable[LabelledReview]) -> None:
    """Write the reviews in their order. The same reviews give the same bytes.

    Raises:
        OSError: the disk is full or the place cannot be written.
    """
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for review in reviews:
                writer.write(_example(review).SerializeToString(deterministic=True))
    except tf.errors.OpError as error:
        raise OSError(system_words(error.message)) from None


def _example(review: LabelledReview) -> tf.train.Example:
    features = {
        "idx": tf.train.Feature(int64_list=tf.train.Int64List(value=[review.row])),
        "sentence": tf.train.Feature(bytes_list=tf.train.BytesList(value=[review.text.encode()])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[review.label])),
    }
    if review.rating is not None:
        features["rating"] = tf.train.Feature(float_list=tf.train.FloatList(value=[review.rating]))
    return tf.train.Example(features=tf.train.Features(feature=features))


def read_records(path: Path) -> list[LabelledReview]:
    """Every review of a file, in its order.

    Raises:
        DataError: the file is missing, cut short, or holds other records.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; `review-trainer prepare` makes it")
    features = {
        "idx": tf.io.FixedLenFeature((), tf.int64),
        "sentence": tf.io.FixedLenFeature((), tf.string),
        "label": tf.io.FixedLenFeature((), tf.int64),
        "rating": tf.io.FixedLenFeature((), tf.float32, math.nan),
    }
    reviews: list[LabelledReview] = []
    try:
        for serialized in tf.data.TFRecordDataset(str(path)).batch(READ_AT_ONCE):
            batch = tf.io.parse_example(serialized, features)
            columns = (batch[name].numpy() for name in features)
            for row, sentence, label, rating in zip(*columns, strict=True):
                # The shortest decimal of a float32 is what was written: 3.7, and not 3.7000000477.
                own = None if np.isnan(rating) else float(str(rating))
                reviews.append(LabelledReview(int(row), sentence.decode(), int(label), own))
    except tf.errors.DataLossError:
        raise DataError(f"{path}: is no TFRecord file, or was cut short; run `review-trainer prepare` again") from None
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
        raise DataError(f"{path}: a record lacks idx, sentence or label; run `review-trainer prepare` again") from None
    return reviews
