"""Safe reading of YAML: what is limited, ambiguous or not plain data is refused with its line, before it costs time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from yaml.reader import Reader

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # values after aliases are replaced by what they stand for
MAX_DEPTH = 50
MAX_DIGITS = 100  # of an integer; Python itself refuses more than 4,300

if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"


class YamlProblem(ValueError):
    """A text is not the YAML of a job file; the message is one line, without the place."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line  # counted from 1; None: the text as a whole


class _Loader(_Base):
    """Plain data: mappings, lists, text, numbers, booleans, null. Dates remain text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (read by PyYAML)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise YamlProblem(
                f"a number of {len(node.value):,} digits; quote it if it is meant as text", _line(node.start_mark)
            )
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """Parse a YAML document.

    Raises
    ------
    YamlProblem
        The text is not valid YAML, too large, or more than plain data.
    """
    if len(text) > MAX_BYTES:
        raise YamlProblem(f"larger than {MAX_BYTES:,} characters; that is no job file")
    if found := Reader.NON_PRINTABLE.search(text):
        raise YamlProblem(_explain_control(found), text.count("\n", 0, found.start()) + 1)
    try:
        _check_structure(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_keys(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise YamlProblem(f"not valid YAML: {problem}", _line(mark) if mark else None) from error


def _check_structure(text: str) -> None:
    """Check depth, size, aliases, tags and scalars on the events of the parser, which takes no recursion."""
    documents = 0
    sizes: dict[str, int] = {}  # nodes under each anchor, its aliases replaced
    open_nodes: list[tuple[str | None, int]] = []  # anchor of each open collection, and the nodes before it
    nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlProblem("a second document begins here; give each job a file of its own", line)
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in open_nodes):
                raise YamlProblem(f"*{event.anchor} stands for something that contains itself; write it out", line)
            nodes += sizes.get(str(event.anchor), 0)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.NodeEvent):
            _check_node(event, line)
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, nodes))
            elif event.anchor:
                sizes[event.anchor] = 1
            nodes += 1
        if len(open_nodes) > MAX_DEPTH:
            raise YamlProblem(f"nested more than {MAX_DEPTH} levels deep; a job file has less than ten", line)
        if nodes > MAX_NODES:
            raise YamlProblem(f"more than {MAX_NODES:,} values, aliases replaced; write smaller lists", line)


def _check_node(event: Any, line: int) -> None:
    """Check the tag of a value, and its text for control characters that were escaped."""
    if event.tag not in (None, "!", _TEXT):
        shown = re.sub(r"^tag:yaml\.org,2002:", "!!", event.tag)[:60]
        raise YamlProblem(f"the tag {shown} is not allowed; a job file is plain data, so leave it out", line)
    if isinstance(event, yaml.ScalarEvent) and (found := Reader.NON_PRINTABLE.search(event.value)):
        raise YamlProblem(_explain_control(found), line)


def _check_keys(root: yaml.Node) -> None:
    """Check that keys are text and given once; before merges (`<<`) are resolved, whose keys may be replaced."""
    todo, seen = [root], {id(root)}
    while todo:
        node = todo.pop()
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = _line(key.start_mark)
                if key.tag not in (_TEXT, _MERGE):
                    raise YamlProblem(f"the key {_show_key(key)} is not text; quote it", line)
                if key.value in lines:
                    first = f" (first in line {lines[key.value]})" if lines[key.value] != line else ""
                    raise YamlProblem(f"the key {_show_key(key)} is given twice{first}; keep one", line)
                lines[key.value] = line
                children.append(value)
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        for child in children:
            if id(child) not in seen:  # what several aliases stand for is checked once
                seen.add(id(child))
                todo.append(child)


def _show_key(key: yaml.Node) -> str:
    return f"`{key.value[:60]}`" if isinstance(key, yaml.ScalarNode) else "of this mapping"


def _explain_control(found: re.Match[str]) -> str:
    return f"the control character U+{ord(found[0]):04X}; remove it"


def _line(mark: Any) -> int:
    return int(mark.line) + 1
