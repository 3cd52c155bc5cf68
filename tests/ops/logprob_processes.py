"""A model with SequenceLogProb as its head, trained by one process or by several: run by test_logprob_head.py, once a
process, with the rank, the number of processes and a folder; writes what it found there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from logprob_cases import draw
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine import SequenceLogProb

VOCABULARY, WIDTH, SEQUENCES = 35, 6, 4  # a vocabulary that no number of processes divides
WAYS = ("one", "ddp", "fsdp head and body", "fsdp whole")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(WIDTH, WIDTH)
        self.head = SequenceLogProb(nn.Linear(WIDTH, VOCABULARY), memory_budget=0)

    def forward(self, rows: Tensor, triples: dict[str, Any]) -> Tensor:
        logps: Tensor = self.head(torch.tanh(self.body(rows)), *triples.values())
        return logps.square().mean()


def model() -> Model:
    torch.manual_seed(3)
    return Model()


def loss_of(module: nn.Module, part: int) -> Tensor:
    case = draw(5, VOCABULARY, WIDTH, torch.float32, sequences=SEQUENCES, seed=part)
    loss: Tensor = module(case.hidden, case.triples)
    return loss


def gradients(module: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        found[name.removeprefix("module.")] = grad
    return found


def one_process(parts: int) -> dict[str, Tensor]:
    module = model()
    losses = torch.stack([loss_of(module, part) for part in range(parts)])
    losses.mean().backward()
    return {"losses": losses.detach(), **gradients(module)}


def spread(way: str, rank: int, mesh: DeviceMesh) -> dict[str, Tensor]:
    """Each process computes its part; the wrappers average the gradients."""
    whole = model()
    module: nn.Module = whole
    if way == "ddp":
        module = DistributedDataParallel(whole)
    else:
        for inner in (whole.head, whole.body) if way == "fsdp head and body" else ():
            fully_shard(inner, mesh=mesh)
        fully_shard(whole, mesh=mesh)
    loss = loss_of(module, rank)
    loss.backward()
    parts = [torch.empty(()) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, loss.detach())
    return {"losses": torch.stack(parts), **gradients(module)}


def refusals(mesh: DeviceMesh) -> list[str]:
    """What is said of a head that is sharded inside, before and after SequenceLogProb is made of it."""
    said = []
    late = model()
    fully_shard(late.head.lm_head, mesh=mesh)
    early = nn.Linear(WIDTH, VOCABULARY)
    fully_shard(early, mesh=mesh)
    for attempt in (lambda: loss_of(late, 0), lambda: SequenceLogProb(early)):
        try:
            attempt()
        except UserError as error:
            said.append(str(error))
    return said


def main(rank: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    found = {"one": one_process(processes), **{way: spread(way, rank, mesh) for way in WAYS[1:]}}
    said = refusals(mesh)
    if rank == 0:
        tensors = {f"{way}: {name}": x.contiguous() for way, some in found.items() for name, x in some.items()}
        save_file(tensors, folder / "found.safetensors")
        (folder / "said.txt").write_text("\n".join(said))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
