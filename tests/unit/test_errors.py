import inspect
import pickle

from gateway import errors
from gateway.errors import ArchiveError, ConfigError, Fault, GatewayError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, GatewayError) and value.__module__ == errors.__name__
}


def tree():
    """Read the tree in the module's docstring: class -> (parent, remark)."""
    found, ancestors = {}, []
    for line in (errors.__doc__ or "").splitlines():
        name, _, remark = line.lstrip("│├└─ ").partition(" ")
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        if line.startswith(("GatewayError", "│", "├", "└")):
            ancestors = [*ancestors[:depth], name]
            found[name] = (ancestors[-2] if depth else "Exception", remark.strip())
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    drawn = {name: parent for name, (parent, _) in tree().items()}
    assert drawn == {name: value.__bases__[0].__name__ for name, value in CLASSES.items()}


def test_the_tree_says_of_each_archive_error_whether_asking_again_can_help():
    remarks = {name: remark for name, (parent, remark) in tree().items() if parent == "ArchiveError"}
    assert remarks
    for name, remark in remarks.items():
        kind = CLASSES[name]
        assert issubclass(kind, ArchiveError)
        assert kind.retry != ("(do not retry)" in remark), name
        assert kind.retry == ("(retry" in remark), name


def test_the_tree_explains_each_class():
    assert [name for name, (_, remark) in tree().items() if not remark] == ["GatewayError"]


def test_a_configuration_error_passes_from_one_process_to_another_whole():
    error = ConfigError("config.yaml", (Fault("a.b", "is wrong"), Fault("c", "is missing")))
    passed = pickle.loads(pickle.dumps(error))
    assert (str(passed), passed.faults) == (str(error), error.faults)
