"""Trace a module with torch.fx while computing the value of every node on example input.

The values answer what symbols can't: which branch the module takes, and which node holds the mean of which map. A
child on the meta device can't be run: random values of the shape that it gives stand for its output.
"""

import inspect
import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

CONSTANT = "constant"


class ValueTracer(fx.Tracer):
    """torch.fx tracer that runs what it records: `values` holds every node's result.

    Children are leaves, except those with the forward of nn.Sequential, which only passes on. A branch that depends on
    a traced value is decided by the example, and the graph asserts that later input decides alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[fx.Node, Any] = {}
        self.generator = torch.Generator().manual_seed(0)
        self._arguments: dict[str, Any] = {}
        self._evaluating = False

    def run(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Trace `module` on `args` and `kwargs` as it runs in training; False if torch.fx can't trace it.

        The children run as they stand, so they should be in evaluation mode; the module itself ends as it began: a
        tensor that its forward makes, which torch.fx leaves on it, goes to the `meta` of its node as CONSTANT.
        """
        training, attributes = module.training, set(vars(module))
        try:
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            self._arguments = dict(bound.arguments)
            module.training = True
            with warnings.catch_warnings():  # torch.fx can't assert that a list, say, is the same in each call
                warnings.filterwarnings("ignore", "Was not able to add assertion", UserWarning)
                self.trace(module, {k: v for k, v in bound.arguments.items() if not isinstance(v, Tensor)})
        except Exception:  # whatever a foreign forward raises here says only that it can't be rewritten
            return False
        finally:
            module.training = training
            new = {name: vars(module).pop(name) for name in set(vars(module)) - attributes}
        for node in self.graph.find_nodes(op="get_attr"):
            if node.target in new:
                node.meta[CONSTANT] = new[node.target]
        return True

    def forget(self) -> None:
        """Free the values: graph and tracer refer to each other, so they may outlive the search by many modules."""
        self.values.clear()
        self._arguments.clear()

    def observe(self, node: fx.Node) -> None:
        """Called with each new node before anything after it has run: later code may work in place."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).forward is not nn.Sequential.forward

    def create_proxy(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy = super().create_proxy(*args, **kwargs)
        if proxy.node.op == "placeholder" and proxy.node.target not in self._arguments:
            # torch.fx numbers the arguments that it specializes: mask=None comes as mask_1
            proxy.node.target = str(proxy.node.target).removesuffix("_1")
        if proxy.node.op != "output":
            self._evaluating = True  # torch.fx has patched the modules' calls meanwhile: see the two methods below
            try:
                self.values[proxy.node] = self.evaluate(proxy.node)
                self.observe(proxy.node)
            finally:
                self._evaluating = False
        return proxy

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._evaluating else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        answer = bool(self.values[obj.node])
        unchanged = self.create_proxy("call_function", operator.eq, (obj, answer), {})
        message = f"{type(self.root).__name__} takes another branch for this input than SRP was applied for"
        self.create_proxy("call_function", torch._assert, (unchanged, message), {})
        return answer

    def evaluate(self, node: fx.Node) -> Any:
        """Result of `node` on the values of the nodes before it."""
        args = fx.node.map_arg(node.args, self._value)
        kwargs = fx.node.map_arg(node.kwargs, self._value)
        target: Any = node.target
        match node.op:
            case "placeholder":
                return self._arguments[target]
            case "call_function":
                return target(*args, **kwargs)
            case "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            case "call_module":
                return self._call(self.root.get_submodule(target), args, kwargs)
            case _:  # get_attr
                return self._real(operator.attrgetter(target)(self.root))

    def _value(self, node: fx.Node) -> Any:
        if node not in self.values:  # buffers and constants get their nodes from torch.fx without a proxy
            self.values[node] = self.evaluate(node)
        return self.values[node]

    def _call(self, child: nn.Module, args: Any, kwargs: Any) -> Any:
        if not any(tensor.is_meta for tensor in (*child.parameters(), *child.buffers())):
            return child(*args, **kwargs)
        args, kwargs = tree_map(to_meta, (args, kwargs))
        return tree_map(self._real, child(*args, **kwargs))

    def _real(self, value: Any) -> Any:
        return random_like(value, self.generator) if isinstance(value, Tensor) and value.is_meta else value


def to_meta(value: Any) -> Any:
    """`value`, on the meta device where it is a tensor."""
    return value.to("meta") if isinstance(value, Tensor) else value


def random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers on the CPU, of the shape and type of `tensor`: normal random ones, or zeros where it isn't of floats."""
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)


def ancestors(node: fx.Node) -> set[fx.Node]:
    """All nodes that `node` is computed from."""
    return _reach(node, lambda n: n.all_input_nodes)


def descendants(node: fx.Node) -> set[fx.Node]:
    """All nodes that are computed from `node`."""
    return _reach(node, lambda n: list(n.users))


def _reach(start: fx.Node, neighbours: Callable[[fx.Node], list[fx.Node]]) -> set[fx.Node]:
    reached: set[fx.Node] = set()
    frontier = [start]
    while frontier:
        new = [n for n in neighbours(frontier.pop()) if n not in reached]
        reached.update(new)
        frontier.extend(new)
    return reached
