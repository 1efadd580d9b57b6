"""A torch module of a user's own: found, made, tried, and named by its code (docs/models.md).

What would only show in the middle of a stream is refused here, in one line: `make_module` raises
ValueError, and nothing else, for a class that cannot be found, made or trained.
"""

import ast
import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

from learners.config import PATH, ModelConfig
from learners.models.model import ModuleFault
from stream.columns import SIDE

#: What keeps statistics of its own or draws at random: shards hold neither, and a batch would not
#: repeat.
_REFUSED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RNNBase)
#: Rows of the trial. An answer may differ by this share of the answers' spread where other rows
#: stand beside it: matrix products of other sizes add up in another order.
_ROWS, _TOLERANCE = 7, 1e-3


def make_module(config: ModelConfig) -> nn.Module:
    """The module that `config.kind` names, in evaluation mode. ValueError for one that cannot be
    trained here."""
    found = _named(config.kind)
    shape = {
        "features": len(config.categorical),
        "dim": config.dim,
        "numbers": len(config.number_names),
    }
    if config.images:
        shape["images"] = len(config.images)
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(config.seed)
    try:
        module: nn.Module = found(**shape, **config.module_options)
    except TypeError as error:
        raise ValueError(
            f"kind = {config.kind!r}: {_line(error)}; it is called with {sorted(shape)} and "
            f"module_options"
        ) from error
    except Exception as error:  # whatever code of a user's own raises
        raise ValueError(
            f"kind = {config.kind!r}: its constructor raised {_line(error)}"
        ) from error
    finally:
        torch.set_rng_state(before)
    module.eval()
    _check_parts(config.kind, module)
    _check_answers(config, module)
    return module


@contextmanager
def own_faults(kind: str) -> Iterator[None]:
    """What a user's own code raises within, as ModuleFault. Want of memory is no fault of it."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever code of a user's own raises
        raise ModuleFault(f"kind = {kind!r}: {type(error).__name__}: {_line(error)}") from error


def checked_logits(kind: str, answer: object, rows: int) -> Tensor:
    """(rows,) of what `forward` answered. ValueError for anything else."""
    if not isinstance(answer, Tensor):
        raise ValueError(
            f"kind = {kind!r}: forward answered a {type(answer).__name__}, expected one tensor of "
            f"logits"
        )
    if answer.shape not in ((rows,), (rows, 1)) or not answer.is_floating_point():
        raise ValueError(
            f"kind = {kind!r}: forward answered {answer.dtype} {tuple(answer.shape)} for {rows} "
            f"rows, "
            f"expected floats ({rows},) or ({rows}, 1)"
        )
    return answer.reshape(-1)


def code_digest(path: str) -> str:
    """8 hex digits over the source of the class that `package.module:Class` names, and of what it
    uses of its own package and folder. Comments, blank lines and formatting count for nothing."""
    first = sys.modules[_named(path).__module__]
    home, package = _folder(first), first.__name__.partition(".")[0]
    sources: dict[str, str] = {}
    waiting = [first]
    while waiting:
        module = waiting.pop()
        if module.__name__ in sources:
            continue
        sources[module.__name__] = _source(module)
        for value in list(vars(module).values()):
            used = (
                value
                if isinstance(value, ModuleType)
                else sys.modules.get(getattr(value, "__module__", None) or "")
            )
            if used is not None and _is_own(used, home, package):
                waiting.append(used)
    text = "\0".join(f"{name}\0{source}" for name, source in sorted(sources.items()))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _is_own(module: ModuleType, home: str, package: str) -> bool:
    folder = _folder(module)
    return bool(folder) and (folder == home or module.__name__.partition(".")[0] == package)


def _folder(module: ModuleType) -> str:
    """Of its file; "" = it has none."""
    return (getattr(module, "__file__", None) or "").rpartition("/")[0]


def _source(module: ModuleType) -> str:
    try:
        return ast.unparse(ast.parse(inspect.getsource(module)))
    except (OSError, TypeError, SyntaxError):
        return ""  # compiled, or typed at a prompt: there is nothing to compare


def _named(path: str) -> type[nn.Module]:
    """The class that `package.module:Class` names."""
    where, _, name = path.partition(PATH)
    try:
        found = getattr(importlib.import_module(where), name)
    except Exception as error:  # importing runs code of a user's own
        raise ValueError(
            f"kind = {path!r}: {_line(error)}; it must be importable wherever the model is "
            f"trained or served"
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"kind = {path!r}: {found!r} is not a subclass of torch.nn.Module")
    return found


def _check_parts(kind: str, module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, _REFUSED):
            raise ValueError(
                f"kind = {kind!r}: {name or 'it'} is a {type(part).__name__}, which keeps state "
                f"of its own or draws at "
                "random; allowed are modules that are a function of parameters and inputs (such "
                "as LayerNorm)"
            )
    for name, value in module.named_parameters():
        if nn.parameter.is_lazy(value):
            raise ValueError(
                f"kind = {kind!r}: parameter {name} has no shape before the first batch; name its "
                f"sizes"
            )
        if value.dtype != torch.float32 or value.numel() == 0:
            raise ValueError(
                f"kind = {kind!r}: parameter {name} is {value.dtype} {tuple(value.shape)}, "
                f"expected float32"
            )


def _check_answers(config: ModelConfig, module: nn.Module) -> None:
    """It answers one logit a row, the same again, and the same whichever rows stand beside it; and
    it has a gradient."""
    kind = config.kind
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(_ROWS, len(config.categorical), config.dim, generator=generator)
    numbers = torch.randn(_ROWS, len(config.number_names), generator=generator)
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    inputs = [embeddings, numbers]
    if config.images:
        inputs.append(
            torch.rand(_ROWS, len(config.images), 3, SIDE, SIDE, generator=generator) * 2 - 1
        )
    answer = _answer(kind, module, inputs)
    if not torch.equal(answer, _answer(kind, module, inputs)):
        raise ValueError(
            f"kind = {kind!r}: forward answers the same rows differently again: it draws at random"
        )
    for name, value in module.named_buffers():
        if name not in buffers or not torch.equal(value, buffers[name]):
            raise ValueError(
                f"kind = {kind!r}: forward changes buffer {name}; shards hold parameters alone"
            )
    spread = max(1.0, float(answer.abs().max())) * _TOLERANCE
    alone = [_answer(kind, module, [one[i : i + 1] for one in inputs]) for i in range(_ROWS)]
    few = _answer(kind, module, [one[2:5] for one in inputs])
    if (
        float((torch.cat(alone) - answer).abs().max()) > spread
        or float((few - answer[2:5]).abs().max()) > spread
    ):
        raise ValueError(
            f"kind = {kind!r}: the answer to a row depends on the other rows of its batch (it "
            f"normalises over them?); "
            "a row must be answered alike in training and in serving, whatever stands beside it"
        )
    _check_gradient(kind, module, inputs)


def _check_gradient(kind: str, module: nn.Module, inputs: list[Tensor]) -> None:
    embeddings = inputs[0].clone().requires_grad_()
    by = [embeddings, *(one for one in module.parameters() if one.requires_grad)]
    try:
        total = module(embeddings, *inputs[1:]).sum()
        torch.autograd.grad(total, by, allow_unused=True)
    except Exception as error:  # whatever code of a user's own raises
        raise ValueError(f"kind = {kind!r}: it has no gradient: {_line(error)}") from error


def _answer(kind: str, module: nn.Module, inputs: list[Tensor]) -> Tensor:
    rows = len(inputs[0])
    try:
        with torch.no_grad():
            answer = module(*inputs)
    except Exception as error:  # whatever code of a user's own raises
        raise ValueError(
            f"kind = {kind!r}: forward of {rows} rows raised {_line(error)}"
        ) from error
    logits = checked_logits(kind, answer, rows)
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"kind = {kind!r}: forward answered a value that is not finite")
    return logits


def _line(error: BaseException) -> str:
    """One line of an error's text, which may have many."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
