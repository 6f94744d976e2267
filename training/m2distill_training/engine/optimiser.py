"""torch's AdamW without the import of torch's compiler."""

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """torch's AdamW, with the methods below as they are inside of torch's decorators.

    The decorators import torch's compiler, in order to exclude the methods from compilation: 0.9 s of CPU and 800
    modules at every start of a training. Nothing is compiled here.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
