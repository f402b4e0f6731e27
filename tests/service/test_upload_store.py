"""Pictures of added items at an address, which several services share: on moto's server of S3."""

import io
import logging

import pytest
from PIL import Image

from dqecir.errors import DataError
from dqecir.index.contract import ItemBatch
from dqecir.service.upload_store import UploadStore
from tests.service.conftest import form, put, refused

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

ROOT = "s3://pictures/shop"


@pytest.fixture(scope="module")
def server():
    started = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """A bucket of S3, as the environment of a service names it."""
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir("pictures")
    yield files
    files.rm("pictures", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def replicas(bucket, serving):
    with serving(uploads=ROOT) as one, serving(uploads=ROOT) as other:
        yield one, other


def kept(bucket) -> list[str]:
    return bucket.find("pictures")


def other_picture() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (50, 90), "green").save(written, "PNG")
    return written.getvalue()


def test_services_show_the_same_pictures(replicas, bucket, picture, settings):
    one, other = replicas
    made = put(one, "new/1", picture, {"shade": "teal"}).json()
    assert made["attributes"] == {"shade": "teal"}
    shown = [client.get("/v1/images/new/1?size=60") for client in replicas]
    assert [response.status_code for response in shown] == [200, 200]
    assert shown[0].content == shown[1].content
    assert shown[0].headers["etag"] == shown[1].headers["etag"]
    (path,) = kept(bucket)
    assert path.startswith("pictures/shop/") and "new" not in path
    assert bucket.cat_file(path) == picture
    assert not settings.upload_folder.exists()
    assert "s3://" not in other.get("/v1/items/new/1").text


def test_a_picture_at_an_address_is_a_reference_and_a_result(replicas, picture):
    one, other = replicas
    put(one, "new", picture)
    found = other.post("/v1/search", json={"item": "new", "text": "", "k": 3}).json()["answers"]
    same = other.post("/v1/search", **form({"text": "", "k": 3, "exclude": ["new"]}, picture)).json()
    assert [answer["id"] for answer in found] == [answer["id"] for answer in same["answers"]]
    again = other.post("/v1/search", json={"item": "new", "text": "", "k": 3}).json()["answers"]
    assert again == found
    maps = other.post("/v1/explanations", json={"item": found[0]["id"], "text": "", "target": "new"})
    assert maps.status_code == 200


def test_a_replaced_and_a_deleted_picture_go(replicas, bucket, picture):
    one, other = replicas
    put(one, "new", picture)
    before = kept(bucket)
    assert put(other, "new", other_picture()).status_code == 200
    (after,) = kept(bucket)
    assert [after] != before
    thumbnail = Image.open(io.BytesIO(one.get("/v1/images/new").content))
    assert thumbnail.size[0] < thumbnail.size[1]
    assert one.delete("/v1/items/new").status_code == 204
    assert kept(bucket) == []


def test_candidates_at_an_address_are_reranked(bucket, serving, picture, monkeypatch):
    with serving(uploads=ROOT) as client:
        put(client, "new", picture)
        seen = []

        def scored(request, response, pictures):
            seen.append((request.image is not None, len(pictures)))
            return range(len(pictures))

        monkeypatch.setattr(client.app.state.service.main, "reranker", scored)
        asked = {"item": "new", "text": "is red", "k": 2, "rerank": 5}
        assert client.post("/v1/search", json=asked).status_code == 200
        assert client.post("/v1/search", **form({"k": 1, "rerank": 5}, picture)).status_code == 200
    assert seen == [(True, 5), (True, 5)]


NAME = f"{'0' * 40}.png"


@pytest.mark.parametrize(
    "path",
    [
        f"s3://other/shop/{NAME}",
        f"s3://pictures/{NAME}",
        f"s3://pictures/shop/deeper/{NAME}",
        f"s3://pictures/shop-2/{NAME}",
        f"s3://pictures/shop/../{NAME}",
        "s3://pictures/shop/secret.png",
        "s3://pictures/shop/",
        f"S3://pictures/shop/{NAME}",
        f"memory://pictures/shop/{NAME}",
        f"simplecache::s3://pictures/shop/{NAME}",
        "file:///etc/passwd",
        f"https://pictures.example/shop/{NAME}",
        f"//pictures/shop/{NAME}",
    ],
)
def test_no_other_address_is_read_or_removed(bucket, serving, picture, path):
    places = [
        f"pictures/{name}" for name in (NAME, f"shop/deeper/{NAME}", f"shop-2/{NAME}", "shop/secret.png")
    ]
    for place in places:
        bucket.pipe_file(place, picture)
    with serving(uploads=ROOT) as client:
        index = client.app.state.service.main.index
        item = next(iter(index.ids()))
        index.add(ItemBatch(["odd"], index.tokens([item]), [{"path": path}]))
        refused(client.get("/v1/images/odd"), 404)
        refused(client.post("/v1/search", json={"item": "odd"}), 404)
        assert client.delete("/v1/items/odd").status_code == 204
    assert kept(bucket) == sorted(places)


def test_a_folder_of_uploads_reads_no_address(bucket, serving, picture):
    bucket.pipe_file(f"pictures/shop/{NAME}", picture)
    with serving() as client:
        index = client.app.state.service.main.index
        index.add(ItemBatch(["odd"], index.tokens(index.ids()[:1]), [{"path": f"{ROOT}/{NAME}"}]))
        refused(client.get("/v1/images/odd"), 404)
        assert client.delete("/v1/items/odd").status_code == 204
    assert kept(bucket) == [f"pictures/shop/{NAME}"]


def test_pictures_of_the_catalogue_stay_files_of_this_machine(replicas, bucket):
    one, _ = replicas
    item = one.get("/v1/items?limit=1").json()["items"][0]["id"]
    assert one.get(f"/v1/images/{item}").status_code == 200
    path = one.app.state.service.main.picture_of(item)
    assert one.delete(f"/v1/items/{item}").status_code == 204
    assert path.is_file()


def test_a_store_that_fails_is_no_fault_of_the_client_and_leaves_nothing(
    serving, bucket, picture, monkeypatch, caplog
):
    monkeypatch.setattr(logging.getLogger("dqecir.service"), "propagate", True)
    with serving(uploads="s3://nowhere/shop") as client:
        assert "s3" not in refused(put(client, "new", picture), 503)
        refused(client.get("/v1/items/new"), 404)
    with serving(uploads=ROOT) as client:
        assert put(client, "new", picture).status_code == 201
        files = client.app.state.service.uploads.files
        with monkeypatch.context() as away:
            for name in ("cat_file", "pipe_file", "rm_file"):
                away.setattr(files, name, lambda *_, **__: (_ for _ in ()).throw(ConnectionError("secret")))
            assert "secret" not in refused(client.get("/v1/images/new"), 503)
            refused(client.post("/v1/search", json={"item": "new"}), 503)
            refused(put(client, "new", other_picture()), 503)
            assert client.get("/readyz").status_code == 200
            # The item is gone, though its picture is not.
            assert client.delete("/v1/items/new").status_code == 204
        refused(client.get("/v1/items/new"), 404)
    reasons = [record.fields["reason"] for record in caplog.records if hasattr(record, "fields")]
    said = "pictures cannot be written to s3://nowhere/shop"
    assert any(str(reason).startswith(said) for reason in reasons)
    assert "picture not removed" in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3://bucket/../other",
        "s3://bucket//shop",
        "s3://key:secret@bucket/shop",
        "s3://bucket/shop?endpoint=http://10.0.0.1",
        "s3://bucket/a b",
        "S3://bucket/shop",
        "file:///srv/pictures",
        "local://srv/pictures",
        "gopher://bucket/shop",
    ],
)
def test_an_address_that_is_no_place_for_pictures_is_refused(serving, address):
    with pytest.raises(DataError, match="--uploads") as error, serving(uploads=address):
        pass
    assert "secret" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch):
    def lacks_it(*_, **__):
        raise ImportError("Install s3fs to access S3")

    # fsspec itself remembers what it has imported before.
    monkeypatch.setattr("fsspec.core.url_to_fs", lacks_it)
    with pytest.raises(DataError, match=r"pip install 'dqecir\[s3\]'"):
        UploadStore(ROOT)


def test_any_file_system_of_fsspec_may_hold_them(serving, picture):
    with serving(uploads="memory://pictures/shop") as client:
        assert put(client, "new", picture).status_code == 201
        assert client.get("/v1/images/new").status_code == 200
        assert client.delete("/v1/items/new").status_code == 204
