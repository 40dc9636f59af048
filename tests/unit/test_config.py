import pytest
import yaml
from options import ROOT, default, examples, options, shipped, stated
from pydantic import ValidationError

from gateway.config import Config, load, parse
from gateway.errors import ConfigError
from gateway.translate import charset

SECRET = "s3cret-that-nobody-may-read"


def faults(document):
    with pytest.raises(ConfigError) as caught:
        parse(document, "test.yaml")
    return {fault.path: fault.problem for fault in caught.value.faults}


def faults_of_text(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value


# -- the shipped files ---------------------------------------------------------------------------------------


def test_the_shipped_file_is_the_default_configuration():
    assert load(ROOT / "config.yaml") == Config()


def test_the_shipped_file_states_every_option():
    known = options()
    paths = {path for document in (shipped(), examples()) for path, _ in stated(document, known)}
    assert sorted(known.keys() - paths) == []


def test_options_outside_the_examples_stand_at_their_default_in_the_shipped_file():
    known = options()
    wrong = {
        path: value
        for path, value in stated(shipped(), known)
        if not path.startswith("ae_titles") and value != default(known[path])
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("kind", "name", "chosen"), [("archives", "plain", {"url"}), ("peers", "VIEWER", {"host", "port"})]
)
def test_the_plain_example_of_an_entry_states_all_its_options_at_their_default(kind, name, chosen):
    known = options()
    entry = examples()[kind][name]
    prefix = f"{kind}.*."
    own = {path.removeprefix(prefix).split(".")[0] for path in known if path.startswith(prefix)}
    assert own == set(entry)
    for path, value in stated({kind: {"*": entry}}, known):
        key = path.removeprefix(prefix).split(".")[0]
        if key not in chosen | {"auth"}:
            assert (sorted(value) if key == "allow" else value) == default(known[path]), path


def test_the_examples_of_the_shipped_file_are_a_configuration_without_faults(monkeypatch):
    for name in ("DCM4CHEE_PASSWORD", "DICOMWEB_TOKEN", "API_KEY", "AZURE_CLIENT_SECRET"):
        monkeypatch.setenv(name, SECRET)
    config = parse(examples(), "config.yaml")
    assert config.archives["proxied"].headers["X-Api-Key"].get_secret_value() == SECRET


@pytest.mark.parametrize("name", ["quickstart.yaml", "compose/gateway.yaml"])
def test_the_example_files_have_no_faults(monkeypatch, name):
    monkeypatch.setenv("ORTHANC_PASSWORD", SECRET)
    assert load(ROOT / "examples" / name).peers["RECEIVER"].port == 11113


def test_the_compose_file_mounts_files_that_exist():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    sources = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    files = [source for source in sources if source.startswith("./")]
    assert files
    assert all((ROOT / source).is_file() for source in files)


# -- faults --------------------------------------------------------------------------------------------------


def test_every_fault_is_listed_at_once_with_its_path():
    found = faults(
        {
            "listen": {"port": "x", "prot": 1, "tls": {"certificate": "a.pem"}},
            "archives": {"main": {"url": "ftp://host/x"}, "other": {"url": "http://x", "auth": {"kind": "oauth"}}},
            "peers": {
                "A\\B": {},
                "SEVENTEEN LETTERS": {},
                "CT01": {"allow": ["fly"], "port": 0},
            },
            "unknown_peers": "maybe",
        }
    )
    assert set(found) == {
        "listen.port",
        "listen.prot",
        "listen.tls.key",
        "archives.main.url",
        "archives.other.auth",
        "peers.A\\B",
        "peers.SEVENTEEN LETTERS",
        "peers.CT01.allow.0",
        "peers.CT01.port",
        "unknown_peers",
    }


def test_a_fault_says_what_would_be_right():
    found = faults({"unknown_peers": "maybe", "peers": {"CT01": {"allow": ["fly"]}}, "lisen": {}})
    assert "'reject' or 'accept'" in found["unknown_peers"]
    assert "'store'" in found["peers.CT01.allow.0"]
    assert "config.yaml" in found["lisen"]


def test_the_message_of_a_faulty_file_has_a_line_for_each_fault(tmp_path):
    error = faults_of_text(tmp_path, "listen: {port: 0.5, grace: -1}\nlog: {level: loud}\n")
    first, *lines = str(error).splitlines()
    assert first == f"{tmp_path / 'config.yaml'} has 3 faults:"
    assert sorted(line.split(":")[0].strip() for line in lines) == ["listen.grace", "listen.port", "log.level"]


def test_an_archive_that_is_not_configured_is_a_fault_that_names_those_that_are():
    found = faults(
        {"archives": {"main": {"url": "http://x"}}, "ae_titles": {"A": {"archive": "mian"}}, "listen": {"port": -1}}
    )
    assert "embedded, main" in found["ae_titles.A.archive"]
    assert "listen.port" in found


def test_reports_can_only_go_to_a_peer():
    found = faults({"peers": {"CT01": {"report_to": "CT01_SC"}, "CT02": {"report_to": "CT01"}}})
    assert found == {"peers.CT01.report_to": "'CT01_SC' is not in peers"}


def test_a_gateway_needs_an_ae_title():
    (problem,) = faults({"ae_titles": {}}).values()
    assert "at least 1" in problem


@pytest.mark.parametrize("address", ["ct01.example.org", "10.0.0.300", "10.0.0.5/24", ""])
def test_what_a_peer_calls_from_is_an_address_or_a_network_without_host_bits(address):
    assert "10.0.0.0/24" in faults({"peers": {"CT01": {"addresses": [address]}}})["peers.CT01.addresses.0"]


@pytest.mark.parametrize("certificate", ["", "sha256:12", f"sha256:{'x' * 64}"])
def test_a_certificate_is_a_name_or_a_whole_fingerprint(certificate):
    assert "sha256:" in faults({"peers": {"CT01": {"certificates": [certificate]}}})["peers.CT01.certificates.0"]


@pytest.mark.parametrize("listen", [{}, {"tls": {"certificate": "a.pem", "key": "a.key"}}])
def test_a_peer_bound_to_a_certificate_needs_a_port_that_asks_for_one(listen):
    found = faults({"listen": listen, "peers": {"CT01": {"certificates": ["ct01.example.org"]}}})
    assert "ca" in found["peers.CT01.certificates"]


@pytest.mark.parametrize(
    "listen", [{"tls_port": 2762}, {"port": 7, "tls_port": 7, "tls": {"certificate": "a", "key": "b"}}]
)
def test_a_port_for_tls_needs_tls_and_is_another_than_the_plain_one(listen):
    assert "tls_port" in faults({"listen": listen})["listen"]


def test_a_peer_with_a_port_needs_a_host():
    assert "host" in faults({"peers": {"CT01": {"port": 104}}})["peers.CT01"]


CHARACTER_SETS = [
    *(term for term in (f"ISO_IR {number}" for number in range(300)) if charset.defined_term(term) == term),
    *(term for term in (f"ISO 2022 IR {number}" for number in range(300)) if charset.defined_term(term) == term),
    "GB18030",
    "GBK",
    "\\ISO 2022 IR 87",
    "ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159",
]


@pytest.mark.parametrize("terms", [term for term in CHARACTER_SETS if term != "ISO 2022 IR 192"])
def test_a_peer_s_character_set_is_any_that_can_be_decoded(terms):
    peer = parse({"peers": {"CT01": {"character_set": terms, "answer_character_set": terms}}}, "test").peers["CT01"]
    assert peer.character_set == peer.answer_character_set == terms


@pytest.mark.parametrize("terms", ["latin1", "ISO_IR 7", "ISO_IR 100\\ISO_IR 144", "ISO_IR 192\\ISO 2022 IR 87"])
@pytest.mark.parametrize("option", ["character_set", "answer_character_set"])
def test_a_character_set_that_the_standard_does_not_have_is_a_fault(option, terms):
    (problem,) = faults({"peers": {"CT01": {option: terms}}}).values()
    assert "ISO_IR 100" in problem


@pytest.mark.parametrize("auth", [{"password": "a", "password_file": "b"}, {}])
def test_basic_sign_in_takes_one_password(auth):
    document = {"archives": {"a": {"url": "http://x", "auth": {"kind": "basic", "username": "u", **auth}}}}
    (problem,) = faults(document).values()
    assert "password_file" in problem


@pytest.mark.parametrize("auth", [{"token": "a", "token_file": "b"}, {}])
def test_bearer_sign_in_takes_one_token(auth):
    document = {"archives": {"a": {"url": "http://x", "auth": {"kind": "bearer", **auth}}}}
    (problem,) = faults(document).values()
    assert "token_file" in problem


@pytest.mark.parametrize("title", ["", "   ", "SEVENTEEN LETTERS", "A\\B", "A\x01B", "ÄTITEL"])
def test_an_ae_title_is_1_to_16_printable_ascii_characters_without_backslash(title):
    assert len(faults({"ae_titles": {title: {}}})) == 1


@pytest.mark.parametrize("document", [[1, 2], "text", 3, {1: 2}])
def test_a_document_that_is_no_mapping_of_names_is_a_fault(document):
    assert len(faults(document)) == 1


# -- reading the file ----------------------------------------------------------------------------------------


def test_an_empty_file_is_the_default_configuration(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("# nothing\n")
    assert load(path) == Config()


@pytest.mark.parametrize(
    "text",
    [
        "listen: {port: 1}\nlisten: {port: 2}\n",
        "listen:\n  port: 1\n  port: 2\n",
        "peers:\n  CT01: {}\n  CT02: {}\n  CT01: {}\n",
    ],
)
def test_a_key_that_stands_twice_is_a_fault_with_its_line(tmp_path, text):
    error = faults_of_text(tmp_path, text)
    assert "stands twice" in str(error)
    assert f"line {len(text.splitlines())}" in str(error)


@pytest.mark.parametrize("text", ["listen: [\n", "a: b: c\n", "\t- x", "!!python/object:os.system {}"])
def test_text_that_is_not_yaml_is_a_fault_with_its_line(tmp_path, text):
    assert "is not YAML" in str(faults_of_text(tmp_path, text))


def test_a_file_that_is_not_utf_8_is_a_fault(tmp_path):
    assert "UTF-8" in str(faults_of_text(tmp_path, b"log: {level: \xff}\n"))


def test_a_file_that_is_not_there_is_a_fault(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "absent.yaml")


# -- environment variables -----------------------------------------------------------------------------------


def test_a_variable_in_a_value_stands_for_the_environments(monkeypatch):
    monkeypatch.setenv("GATEWAY_TEST_PORT", "104")
    monkeypatch.setenv("GATEWAY_TEST_HOST", "10.0.0.1")
    config = parse({"listen": {"port": "${GATEWAY_TEST_PORT}", "host": "${GATEWAY_TEST_HOST}"}}, "test.yaml")
    assert (config.listen.port, config.listen.host) == (104, "10.0.0.1")


def test_a_variable_inside_a_text_or_a_list_is_filled(monkeypatch):
    monkeypatch.setenv("GATEWAY_TEST_HOST", "10.0.0.1")
    document = {
        "archives": {"main": {"url": "https://${GATEWAY_TEST_HOST}:8042/dicom-web"}},
        "peers": {"CT01": {"addresses": ["${GATEWAY_TEST_HOST}"]}},
    }
    config = parse(document, "test.yaml")
    assert config.archives["main"].url == "https://10.0.0.1:8042/dicom-web"
    assert config.peers["CT01"].addresses == ["10.0.0.1"]


def test_variables_that_are_not_set_are_faults_beside_all_others(monkeypatch):
    monkeypatch.delenv("GATEWAY_TEST_ABSENT", raising=False)
    found = faults(
        {
            "spool": {"folder": "${GATEWAY_TEST_ABSENT}"},
            "peers": {"CT01": {"addresses": ["10.0.0.1", "${GATEWAY_TEST_ABSENT}"]}},
            "log": {"level": "loud"},
        }
    )
    assert set(found) == {"spool.folder", "peers.CT01.addresses.1", "log.level"}
    assert "GATEWAY_TEST_ABSENT" in found["spool.folder"]


# -- secrets -------------------------------------------------------------------------------------------------

WITH_SECRETS = [
    {"kind": "basic", "username": "u", "password": "${GATEWAY_TEST_SECRET}"},
    {"kind": "bearer", "token": "${GATEWAY_TEST_SECRET}"},
    {"kind": "oauth2", "token_url": "https://t", "client_id": "c", "client_secret": "${GATEWAY_TEST_SECRET}"},
    {
        "kind": "azure",
        "credential": "client_secret",
        "tenant_id": "t",
        "client_id": "c",
        "client_secret": "${GATEWAY_TEST_SECRET}",
    },
]


@pytest.mark.parametrize("auth", WITH_SECRETS)
def test_a_secret_is_not_in_the_text_of_a_configuration(monkeypatch, auth):
    monkeypatch.setenv("GATEWAY_TEST_SECRET", SECRET)
    headers = {"X-Api-Key": "${GATEWAY_TEST_SECRET}"}
    config = parse({"archives": {"a": {"url": "http://x", "auth": auth, "headers": headers}}}, "test.yaml")
    for text in (repr(config), str(config), config.model_dump_json(), repr(config.model_dump())):
        assert SECRET not in text
    assert config.archives["a"].headers["X-Api-Key"].get_secret_value() == SECRET


@pytest.mark.parametrize("auth", WITH_SECRETS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"password_file": "x"},
        {"token_file": "x"},
        {"other": "${GATEWAY_TEST_SECRET}"},
        {"password": ["${GATEWAY_TEST_SECRET}"]},
        {"token": {"value": "${GATEWAY_TEST_SECRET}"}},
    ],
)
def test_a_secret_is_not_in_the_faults_of_a_configuration(monkeypatch, auth, wrong):
    monkeypatch.setenv("GATEWAY_TEST_SECRET", SECRET)
    with pytest.raises(ConfigError) as caught:
        parse({"archives": {"a": {"url": "http://x", "auth": {**auth, **wrong}}}}, "test.yaml")
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.faults)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError):
        Config().listen.port = 1
