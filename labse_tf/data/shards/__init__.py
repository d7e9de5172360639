"""Shards: pairs as token ids on disk or in a bucket, ready for training.

    ParallelCorpus -prepare_pairs-> DIR
    DIR -open_prepared-> TokenCorpus (in memory) -sentence_pairs-> tf.data.Dataset
    DIR -PairStream-> (on disk) -stream_pairs-> tf.data.Dataset

`layout` defines the files, `writing` writes them, `tokens` reads the arrays without
TensorFlow, `stream` reads the TFRecords.
"""
