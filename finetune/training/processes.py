"""Several processes that train one seed together, as started by `accelerate launch` or torchrun: each takes a part of every batch.

The loss of a batch is not a sum over its samples (the contrastive loss compares each sample with all others), so the processes exchange
their outputs and each computes the loss of the complete batch. Only its own rows carry a gradient there, hence the sum of all processes'
gradients is the gradient that one process would compute. With a single process everything here returns its input.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env, reduce
from torch import Tensor, nn

from finetune.model.networks import MugOutput
from pretrain.optimisation import choose_attention_kernels
from skesl_mug.errors import UserError

Present = dict[str, Tensor]
AnyT = TypeVar("AnyT")


class Team:
    """The processes of this run; every method except `share` must be called by all of them at the same point."""

    def __init__(self) -> None:
        on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        self.state = PartialState(cpu=on_cpu)
        choose_attention_kernels()

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return int(self.state.process_index)

    @property
    def size(self) -> int:
        """The number of processes."""
        return int(self.state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return bool(self.state.is_main_process)

    def share(self, rows: Sequence[AnyT]) -> list[AnyT]:
        """The part of these rows that this process computes: every n-th, so that rows of similar length are spread evenly."""
        return list(rows[self.rank :: self.size])

    def whole_batch(self, output: MugOutput, present: Present, rows: int) -> tuple[MugOutput, Present]:
        """The outputs [rows, ...] and presence [rows] of the complete batch; gradients flow into this process's own rows alone.

        Args:
            output: of this process's `share` of the batch; of any one row if that is empty (it does not count).
            present: by modality, of the same rows.
            rows: size of the complete batch.
        """
        if self.size == 1:
            return output, present
        own = torch.arange(self.rank, rows, self.size, device=self.state.device)
        parts = [(field, name, values) for field, entries in vars(output).items() for name, values in entries.items()]
        parts += [("present", name, here.float()) for name, here in present.items()]
        local = torch.cat([values.reshape(len(values), -1) for _, _, values in parts], dim=1)[: len(own)]
        whole = reduce(torch.zeros(rows, local.shape[1], device=local.device).index_copy(0, own, local.detach()), "sum")
        whole = whole.index_copy(0, own, local)
        gathered, here = MugOutput(), {}
        columns = whole.split([values[0].numel() for _, _, values in parts], dim=1)
        for (field, name, values), column in zip(parts, columns, strict=True):
            if field == "present":
                here[name] = column.squeeze(1).detach() > 0.5
            else:
                getattr(gathered, field)[name] = column.reshape(rows, *values.shape[1:])
        return gathered, here

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients of all processes; a parameter that no process used keeps none."""
        if self.size == 1:
            return
        used = reduce(torch.tensor([float(p.grad is not None) for p in parameters], device=self.state.device), "sum").tolist()
        gradients = reduce([p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters], "sum")
        for parameter, count, gradient in zip(parameters, used, gradients, strict=True):
            parameter.grad = gradient if count else None

    def gather(self, parts: list[AnyT]) -> list[AnyT]:
        """The parts of all processes of a list that was divided by `share`, in the list's order."""
        if self.size == 1:
            return parts
        numbered = [(place * self.size + self.rank, part) for place, part in enumerate(parts)]
        return [part for _, part in sorted(gather_object(numbered), key=lambda entry: entry[0])]

    def on_main(self, function: Callable[[], AnyT]) -> AnyT:
        """Call `function` on the main process and return its result on all of them; a user error there ends them all.

        Raises:
            UserError: on the main process; the others exit with status 2.
        """
        if self.size == 1:
            return function()
        answer: list[Any] = [None, False]
        fault: UserError | None = None
        if self.is_main:
            try:
                answer = [function(), False]
            except UserError as error:
                answer, fault = [None, True], error
        broadcast_object_list(answer)
        if fault is not None:
            raise fault
        if answer[1]:
            raise SystemExit(2)
        return cast(AnyT, answer[0])

    def wait(self) -> None:
        """Until all processes are here."""
        self.state.wait_for_everyone()
