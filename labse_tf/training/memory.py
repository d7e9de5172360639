"""Memory of a training run, planned before it starts.

`plan_memory` is arithmetic on the recipe and the sizes of the model. It counts what a
training holds by construction: weights, the optimizer's moments, gradients, the tensors
that the backward pass needs, and the matrices of the loss. The memory of the libraries
and of TensorFlow's graphs is measured on a CPU (`benchmarks/memory_plan.py` compares
whole plans with the highest resident memory of runs). Nothing was measured on a GPU.

A step has its peak either at the start of the backward pass, when all activations
exist, or in the optimizer, when all gradients exist. A plan has one column for each.

Symbols: B = pairs of a batch, N = tokens that are encoded together, T = tokens per row,
D = hidden dimension, I = width of the feed-forward layer, H = attention heads,
V = vocabulary size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from labse_tf.adapters import LAYERS, LoRA
from labse_tf.presets import count_parameters
from labse_tf.recipes import BaseRecipe, PretrainingRecipe, Recipe

# In the order of time. Gradient caching computes the loss apart from the activations.
MOMENTS = ("loss", "backward", "update", "checkpoint", "end")

LIBRARIES = "libraries and graphs"

_FLOAT = 4
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes per number of the token table, and of the other weights.
_STORAGE_BYTES = {
    "float32": (4.0, 4.0),
    "float16": (2.0, 2.0),
    "int8": (1.0, 1.0),
    "int4": (0.5625, 1.0),
}

# === Measured on a CPU: TensorFlow 2.21, Keras 3.15, two threads ===

_RUNTIME = 940_000_000  # Python with all libraries imported, and a small model
_BLOCK_GRAPH = 33_000_000  # graph of a block, forward and backward
_CHUNKED_BLOCK_GRAPH = 27_000_000  # the second graph of a block in gradient caching
_VOCABULARY_ENTRY = 150  # the tokenizer, per token of the vocabulary
_LOADED_ENTRY = 350  # the second tokenizer, of the preset that is loaded at the end
_LOSS_MATRICES = 8.5  # matrices of the shape of the cosines, forward and backward
_MASKED_LOSS_MATRICES = 9  # the same for a chunk of the vocabulary
_ROW_COPIES = 8  # copies of the rows of the token table that a lazy update holds
_CHECKPOINT_BUFFERS = 20_000_000  # blocks of rows between variable and file
_MASKED_CHUNK = 8192  # entries of the vocabulary at a time, in the masked-LM loss

# === Not measured ===

_GPU_RUNTIME = 700_000_000  # ours: CUDA context, cuBLAS, cuDNN, fragmentation
_FORWARD_GRAPH = 11_000_000  # ours: graph of a block without the backward pass
_GUIDE_MATRICES = 2.5  # ours: the guide's cosines in both directions, and their masks

# Copied from `labse_tf.cpu_kernels`, whose import is slow: rows of this width and more
# use its kernels.
_NARROWEST = 192


@dataclasses.dataclass(frozen=True)
class Item:
    """Part of the memory of a training run.

    Attributes:
        name: Description.
        held: Moment of `MOMENTS` -> bytes.
    """

    name: str
    held: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Memory and disk space of a training run, in bytes.

    Attributes:
        device: `"cpu"`: main memory; `"gpu"`: memory of one GPU.
        items: Parts of the memory.
        disk: File kind -> bytes on disk, at most, while the run is going on.
    """

    device: str
    items: tuple[Item, ...]
    disk: Mapping[str, int]

    @property
    def moments(self) -> tuple[str, ...]:
        """Moments of `MOMENTS` that the run has."""
        found = {moment for item in self.items for moment in item.held}
        return tuple(moment for moment in MOMENTS if moment in found)

    def total(self, moment: str) -> int:
        """Return the bytes of all items at a moment."""
        return sum(item.held.get(moment, 0) for item in self.items)

    @property
    def peak_moment(self) -> str:
        """Moment with the largest total."""
        return max(self.moments, key=self.total)

    @property
    def peak(self) -> int:
        """Bytes at the peak."""
        return self.total(self.peak_moment)

    @property
    def largest(self) -> Item:
        """Largest item at the peak, except the libraries."""
        moment = self.peak_moment
        items = [item for item in self.items if item.name != LIBRARIES]
        return max(items, key=lambda item: item.held.get(moment, 0))


class Saving(NamedTuple):
    """Change of a recipe that saves memory.

    Attributes:
        flag: The change as a flag of the command line.
        recipe: The changed recipe.
        plan: The plan of the changed recipe.
        saved: Bytes by which the peak is lower.
    """

    flag: str
    recipe: BaseRecipe
    plan: MemoryPlan
    saved: int


_LAST = ("--sequence-length", "--batch-size")
_RANK = 8  # ours: rank of the low-rank weights that are proposed

Planner = Callable[[BaseRecipe], MemoryPlan]


def plan_memory(
    recipe: BaseRecipe,
    vocabulary_size: int,
    *,
    device: Literal["cpu", "gpu"] = "cpu",
    replicas: int = 1,
    deterministic: bool = False,
    measured: bool = False,
    storage: str = "float32",
    text_bytes: int = 0,
    keep_adapters: bool = False,
    teacher: Mapping[str, Any] | None = None,
    guided: bool = False,
) -> MemoryPlan:
    """Plan the memory of a training run whose rows have the recipe's full length.

    Args:
        recipe: Recipe with the shape of the model, of a dual encoder or of a masked
            language model. With stages, the plan is that of the last stage.
        vocabulary_size: Number of rows of the token table.
        device: Device that trains. On a CPU the plan is that of the process, on a GPU
            that of the memory of one GPU.
        replicas: Number of devices that share a batch. Replicas on a CPU share the main
            memory.
        deterministic: See `labse_tf.training.RunOptions`.
        measured: Whether held-out pairs choose the best weights.
        storage: Storage type of the preset.
        text_bytes: Size of the text in main memory.
        keep_adapters: See `labse_tf.training.RunOptions`.
        teacher: Sizes of the teacher of a distillation, whose model stays in memory, as
            arguments of `LaBSEBackbone`. If the student learns its states, each step
            runs it.
        guided: Whether the loss has the vectors of a guide. The guide's model is not in
            memory in a step.

    Returns:
        The plan.

    Raises:
        ValueError: If an argument is not allowed.

    Example:
        >>> from labse_tf.recipes import get_recipe
        >>> from labse_tf.training.memory import plan_memory
        >>> recipe = get_recipe("paper_v1", batch_size=256, chunk_size=32)
        >>> plan = plan_memory(recipe, 501_153)
        >>> plan.peak_moment, plan.largest.name
        ('update', 'optimizer moments')
    """
    for name, value, allowed in (
        ("device", device, ("cpu", "gpu")),
        ("storage", storage, tuple(_STORAGE_BYTES)),
    ):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {allowed}. Received: {value!r}")
    sizes = _Sizes.of(recipe, vocabulary_size)
    on_cpu = device == "cpu"
    copies = replicas if on_cpu else 1
    step = _Step(
        recipe, sizes, replicas, kernels=on_cpu and not deterministic, copies=copies
    )
    step_moments = (*(("loss",) if step.chunked else ()), "backward", "update")
    training = (*step_moments, "checkpoint")
    everywhere = (*training, "end")
    weights = _FLOAT * sizes.all * copies
    moments = dict.fromkeys(training, 2 * _FLOAT * sizes.trained * copies)
    learned = teacher if getattr(recipe, "states_weight", 0) else None
    if on_cpu:
        libraries = _libraries(recipe, vocabulary_size, step.chunked)
        libraries += _FORWARD_GRAPH * (learned["num_layers"] if learned else 0)
        held = dict.fromkeys(training, libraries)
        held["end"] = libraries + vocabulary_size * _LOADED_ENTRY
        # The moments are freed. The allocator returns only large ones to the system.
        moments["end"] = 2 * _FLOAT * sizes.dense * copies
    else:
        held = dict.fromkeys(everywhere, _GPU_RUNTIME)
        moments["end"] = moments["update"]
    items = [
        Item(LIBRARIES, held),
        Item("weights", dict.fromkeys(everywhere, weights)),
        Item("optimizer moments", moments),
        Item("activations", {"backward": step.activations()}),
        Item("states of the teacher", {"backward": step.states(learned)}),
        Item(
            "vectors and loss",
            dict.fromkeys(step_moments[:1], step.loss(guided=guided)),
        ),
        Item("gradients", step.gradients()),
        Item("copies in the optimizer", {"update": step.update_copies()}),
    ]
    if teacher is not None:
        size = _FLOAT * count_parameters(teacher)
        items.append(Item("teacher", dict.fromkeys(everywhere, size)))
    if on_cpu:
        items.append(Item("buffers", {"checkpoint": _CHECKPOINT_BUFFERS}))
        items.append(Item("text", dict.fromkeys(everywhere, text_bytes)))
    else:
        # The weights that were trained are not freed before the preset is loaded.
        items.append(Item("the loaded model", {"end": weights}))
    kept = tuple(item for item in items if any(item.held.values()))
    disk = _disk(sizes, measured, storage, keep_adapters)
    return MemoryPlan(device, kept, disk)


def _libraries(recipe: BaseRecipe, vocabulary_size: int, chunked: bool) -> int:
    """Return the main memory of everything but tensors."""
    block = _BLOCK_GRAPH + chunked * _CHUNKED_BLOCK_GRAPH
    graphs = recipe.num_layers * block
    return _RUNTIME + graphs + vocabulary_size * _VOCABULARY_ENTRY


def _disk(
    sizes: _Sizes, measured: bool, storage: str, keep_adapters: bool
) -> dict[str, int]:
    """Return the bytes on disk by kind of file."""
    # With LoRA, all other weights are those of the preset that the run starts from.
    kept = sizes.low_rank or sizes.all
    state = _FLOAT * (kept + 2 * sizes.trained)
    files = {"checkpoints: two, and one that is being written": 3 * state}
    if measured:
        files["best weights: two, and one that is being written"] = 3 * _FLOAT * kept
    if keep_adapters and sizes.low_rank:
        return files | {"adapters in float32": _FLOAT * sizes.low_rank}
    of_table, of_others = _STORAGE_BYTES[storage]
    others = sizes.all - sizes.low_rank - sizes.table
    preset = of_table * sizes.table + of_others * others
    return files | {f"preset in {storage}": int(preset)}


class _Sizes(NamedTuple):
    """Numbers of parameters.

    Attributes:
        all: All parameters, with the low-rank ones.
        table: Parameters of the token table.
        dense: Trained parameters whose gradient is dense.
        tables: Trained parameters of tables, whose gradient has the rows of the batch.
        kernels: Parameters that the backward pass reads in the compute type.
        low_rank: Low-rank parameters; 0 without LoRA.
    """

    all: int
    table: int
    dense: int
    tables: int
    kernels: int
    low_rank: int = 0

    @classmethod
    def of(cls, recipe: BaseRecipe, vocabulary_size: int) -> _Sizes:
        """Count the parameters of a recipe's model."""
        width, inner = recipe.hidden_dim, recipe.intermediate_dim
        table = vocabulary_size * width
        # Positions, two segments and a layer normalization.
        embeddings = (recipe.max_sequence_length + 4) * width
        block = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
        pooler = width * (width + 1)
        blocks = recipe.num_layers * block
        total = table + embeddings + blocks + pooler
        if isinstance(recipe, PretrainingRecipe):
            # The head is tied to the table, which therefore has a dense gradient.
            head = pooler + 2 * width + vocabulary_size
            dense = table + embeddings + blocks + head
            return cls(total + head, table, dense, 0, dense)
        dense, tables = embeddings + blocks, table
        if recipe.pooling == "pooler":
            dense += pooler
        kernels = dense
        if recipe.pooling == "weighted_mean":
            total, tables = total + vocabulary_size, tables + vocabulary_size
        if not isinstance(recipe, Recipe):
            return cls(total, table, dense, tables, kernels)
        frozen_table, frozen_blocks = recipe.frozen_parts()
        if recipe.lora is not None:
            lora = LoRA(recipe.lora, recipe.lora_alpha, first_block=frozen_blocks)
            low_rank = lora.count_parameters(dataclasses.asdict(recipe))
            # The backward pass ends at the first block that has low-rank weights.
            kernels += low_rank - embeddings - frozen_blocks * block
            return cls(total + low_rank, table, low_rank, 0, kernels, low_rank)
        dense -= frozen_blocks * block
        tables -= table if frozen_table else 0
        return cls(total, table, dense, tables, kernels)

    @property
    def trained(self) -> int:
        """Number of trained parameters."""
        return self.dense + self.tables


class _Step:
    """Memory of a training step besides weights and moments."""

    def __init__(
        self,
        recipe: BaseRecipe,
        sizes: _Sizes,
        replicas: int,
        *,
        kernels: bool,
        copies: int,
    ) -> None:
        self.recipe, self.sizes, self.copies = recipe, sizes, copies
        self.masked = isinstance(recipe, PretrainingRecipe)
        self.batch = -(-recipe.batch_size // replicas)  # of one replica
        if getattr(recipe, "source_share", None) is not None:
            self.batch = -(-self.batch // 2)  # A distillation of one side of each pair.
        self.replicas = replicas
        pairs = min(getattr(recipe, "chunk_size", None) or self.batch, self.batch)
        self.chunked = pairs < self.batch
        sides = 1 if self.masked else 2
        self.tokens = sides * pairs * recipe.sequence_length
        self.rows = sides * self.batch * recipe.sequence_length
        self.kernels = kernels  # of `labse_tf.cpu_kernels`

    def activations(self) -> int:
        """Return the bytes at the start of the backward pass."""
        recipe, size = self.recipe, _DTYPE_BYTES[self.recipe.dtype]
        width, inner = recipe.hidden_dim, recipe.intermediate_dim
        heads = recipe.num_heads * recipe.sequence_length  # scores of a token
        _, frozen = recipe.frozen_parts() if isinstance(recipe, Recipe) else (0, 0)
        if self.sizes.low_rank:
            # Nothing below the first block with low-rank weights but its input.
            embeddings = size * width
            blocks = (recipe.num_layers - frozen) * self._block()
        else:
            # Sums and layer normalization in float32, their output, dropout.
            embeddings = 3 * _FLOAT * width + 2 * size * width + width
            blocks = recipe.num_layers * self._block() - frozen * size * (width + inner)
        # Gradients inside the block whose backward pass is running: of its feed-forward
        # layer, or of the attention scores when the feed-forward layer is finished.
        running = size * (width + inner)
        if recipe.num_layers:
            scores = 3 * _FLOAT * heads - 2 * size * (width + inner)
            running = max(running, scores)
        total = self.tokens * (blocks + embeddings + running)
        if size < _FLOAT:
            # Kernels are converted for the step.
            total += size * self.sizes.kernels
        return total * self.copies

    def states(self, teacher: Mapping[str, Any] | None) -> int:
        """Return the bytes of the states of a teacher that the student learns."""
        if teacher is None:
            return 0
        size = _DTYPE_BYTES[self.recipe.dtype]
        width, inner = teacher["hidden_dim"], teacher["intermediate_dim"]
        # Differences to the states after the student's blocks, in float32.
        kept = self.recipe.num_layers * _FLOAT * width
        # A block of the teacher, which may run last.
        scores = (_FLOAT + size) * teacher["num_heads"] * self.recipe.sequence_length
        running = max(5 * size * width + scores, size * (2 * width + 2 * inner))
        return self.tokens * (kept + running) * self.copies

    def _block(self) -> int:
        """Return the bytes per token that a block keeps for its backward pass."""
        recipe, size = self.recipe, _DTYPE_BYTES[self.recipe.dtype]
        width, inner = recipe.hidden_dim, recipe.intermediate_dim
        heads = recipe.num_heads * recipe.sequence_length
        dropout = recipe.dropout > 0
        # Query, key, value, attention output, and the outputs of both halves.
        kept = 6 * size * width
        if self.kernels and dropout and width >= _NARROWEST:
            # Input of dropout, and which of its elements are kept.
            kept += 2 * (size + 1) * width
        else:
            # Sum, centered sum and scale of a layer normalization in float32.
            kept += 2 * (3 * _FLOAT + dropout) * width
        scores = _FLOAT + (size if size < _FLOAT else 0)
        if dropout:
            # Output of dropout, and its mask as numbers or as bool.
            scores += size + (size if self.kernels else 1)
        # Between A and B of each layer.
        kept += size * len(LAYERS) * (getattr(recipe, "lora", None) or 0)
        return kept + self._activation() * size * inner + scores * heads

    def _activation(self) -> int:
        """Return the number of tensors `(N, I)` that an activation keeps."""
        if self.recipe.activation == "relu":
            return 1
        if self.recipe.activation == "gelu":
            fused = self.kernels and self.recipe.intermediate_dim >= _NARROWEST
            return 2 if fused else 4
        return 6

    def gradients(self) -> dict[str, int]:
        """Return the bytes of gradients by moment."""
        width = self.recipe.hidden_dim
        dense, tables = self.sizes.dense, self.sizes.tables
        rows = min(tables, self.rows * width) if tables else 0
        update = dense + (rows if self._lazy() else tables)
        found = {"update": _FLOAT * update * self.copies}
        if self.chunked:
            # Sums over the chunks so far.
            found["backward"] = _FLOAT * (dense + rows) * self.copies
        return found

    def update_copies(self) -> int:
        """Return the bytes of temporary tensors of the size of gradients."""
        copies = 1 + bool(self.recipe.weight_decay)
        dense = self.sizes.dense
        if not self._lazy():
            return _FLOAT * copies * (dense + self.sizes.tables) * self.copies
        rows = min(self.sizes.tables, self.rows * self.recipe.hidden_dim)
        return _FLOAT * (copies * dense + _ROW_COPIES * rows) * self.copies

    def _lazy(self) -> bool:
        return getattr(self.recipe, "optimizer", "adamw") == "lazy_adamw"

    def loss(self, *, guided: bool = False) -> int:
        """Return the bytes of vectors, their gradients, and the loss."""
        recipe, batch = self.recipe, self.batch
        width = recipe.hidden_dim
        if isinstance(recipe, PretrainingRecipe):
            entries = min(_MASKED_CHUNK, self.sizes.all // width)
            logits = batch * recipe.max_predictions * entries
            numbers = _MASKED_LOSS_MATRICES * logits + 4 * entries * width
        else:
            block = getattr(recipe, "loss_block_size", None)
            candidates = min(block or recipe.batch_size, recipe.batch_size)
            sizes = 1 + sum(dim < width for dim in getattr(recipe, "dims", ()))
            matrices = sizes * _LOSS_MATRICES + guided * _GUIDE_MATRICES
            numbers = matrices * batch * candidates
            # Both sides of this replica, and of all replicas, with their gradients.
            numbers += 4 * (batch + recipe.batch_size * (self.replicas > 1)) * width
            if block:
                numbers += 2 * batch * width
        return int(_FLOAT * numbers * self.copies)


# === What helps ===


def savings(recipe: BaseRecipe, planner: Planner, *, new: bool = False) -> list[Saving]:
    """Return the changes of a recipe that save memory, by their saving, descending.

    Args:
        recipe: Recipe with the shape of the model.
        planner: Function from a recipe to its plan, such as a `functools.partial` of
            `plan_memory`.
        new: Whether the training starts from random weights, which must all be trained.

    Returns:
        Changes that lower the peak by at least one per cent.
    """
    before = planner(recipe).peak
    found = []
    for flag, changed in _changes(recipe, new):
        plan = planner(changed)
        if before - plan.peak >= 0.01 * before:
            found.append(Saving(flag, changed, plan, before - plan.peak))
    return sorted(found, key=lambda saving: -saving.saved)


def combined_savings(
    recipe: BaseRecipe, planner: Planner, limit: int, *, new: bool = False
) -> list[Saving] | None:
    """Return changes that together bring the peak under a limit.

    In each step the change with the largest saving is added. Shorter rows and smaller
    batches, which change the task, are added only if nothing else helps.

    Args:
        recipe: Recipe.
        planner: See `savings`.
        limit: Bytes.
        new: See `savings`.

    Returns:
        The changes in their order, each with the plan of all changes so far; `None` if
        they are not sufficient. Empty if the recipe itself is under the limit.
    """
    chosen: list[Saving] = []
    peak = planner(recipe).peak
    while peak > limit:
        found = savings(recipe, planner, new=new)
        if not found:
            return None
        best = min(found, key=lambda saving: saving.flag.startswith(_LAST))
        # A flag that was given before is replaced: chunks of 16 instead of 32.
        name = best.flag.partition(" ")[0]
        chosen = [s for s in chosen if s.flag.partition(" ")[0] != name]
        chosen.append(best)
        recipe, peak = best.recipe, best.plan.peak
    return chosen


def _changes(recipe: BaseRecipe, new: bool) -> Iterator[tuple[str, BaseRecipe]]:
    """Yield changed recipes that are allowed, each with its flag."""
    fields: dict[str, object] = {}
    if isinstance(recipe, Recipe):
        chunk, batch = recipe.chunk_size, recipe.batch_size
        smaller = 32 if chunk is None or chunk > 32 else chunk // 2
        fields["chunk_size"] = smaller if 0 < smaller < batch else chunk
        fields["loss_block_size"] = 256 if batch > 256 else None
        if recipe.lora is None:
            fields["optimizer"] = "lazy_adamw"
            if not recipe.frozen_parts()[0]:
                fields["freeze"] = ("table", *recipe.freeze)
            if not new:
                fields["lora"] = _RANK
    if recipe.dtype == "float32":
        fields["dtype"] = "bfloat16"
    fields["sequence_length"] = max(16, recipe.sequence_length // 2)
    fields["batch_size"] = max(2, recipe.batch_size // 2)
    for name, value in fields.items():
        before = getattr(recipe, name)
        if value is None or value == before:
            continue
        try:
            changed = dataclasses.replace(recipe, **{name: value})  # type: ignore[arg-type]
            changed.check()
            if isinstance(changed, Recipe):
                changed.check_shape()
        except ValueError:
            continue
        text = " ".join(value) if isinstance(value, tuple) else str(value)
        yield f"--{name.replace('_', '-')} {text}", changed


@contextmanager
def explaining_out_of_memory(
    recipe: BaseRecipe, planner: Planner, *, new: bool = False
) -> Iterator[None]:
    """Raise errors of full memory in the block with the flag that helps most.

    Args:
        recipe: Recipe of the training in the block.
        planner: See `savings`.
        new: See `savings`.

    Raises:
        MemoryError: If the memory is full.
    """
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        raise MemoryError(_explanation(recipe, planner, new, error)) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of Python, TensorFlow or JAX says that memory is full."""
    if isinstance(error, MemoryError):
        return True
    # By name, without the import of TensorFlow. It has the same error for a full disk.
    text = f"{type(error).__name__} {error}"
    full = "ResourceExhausted" in text or "RESOURCE_EXHAUSTED" in text
    return full and "No space left" not in text


def _explanation(
    recipe: BaseRecipe, planner: Planner, new: bool, error: Exception
) -> str:
    """Return an error message on one line."""
    parts = ["Out of memory in training"]
    try:
        plan, found = planner(recipe), savings(recipe, planner, new=new)
    except ValueError:  # The model is not one of this package.
        pass
    else:
        size = in_gigabytes(plan.largest.held[plan.peak_moment])
        parts.append(
            f"the run needs about {in_gigabytes(plan.peak)}, of it {size} for "
            f"{plan.largest.name}"
        )
        if found:
            parts.append(
                f"{found[0].flag} would save about {in_gigabytes(found[0].saved)}, and "
                "--plan lists all parts and flags"
            )
    received = " ".join(str(error).split()) or type(error).__name__
    return f"{'; '.join(parts)}. Received: {received[:200]}"


def in_gigabytes(size: int) -> str:
    """Return a number of bytes in GB, with one digit, two below 1 GB."""
    return f"{size / 1e9:.{1 if size >= 1e9 else 2}f} GB"
