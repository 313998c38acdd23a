"""What docker-py's `images.build` does with our daemon; `tests/build/clients` runs it."""

import io
import tarfile

import docker

client = docker.from_env()


def said(image, path):
    return client.containers.run(image, ["cat", path], remove=True).decode().strip()


image, lines = client.images.build(path="context", tag="py:1", buildargs={"WHO": "py"}, labels={"a": "b"}, rm=True)
assert image.tags == ["py:1"], image.tags
assert said(image, "/who") == "py"
assert image.labels["a"] == "b", image.labels
text = "".join(line.get("stream", "") for line in lines)
assert "Step 1/" in text and "Successfully tagged py:1" in text, text

image, _ = client.images.build(fileobj=io.BytesIO(b"FROM base\nRUN echo object > /object\n"))
assert said(image, "/object") == "object"

archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    for name, content in (("Other", b"FROM base\nCOPY f /f\n"), ("f", b"packed\n")):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
archive.seek(0)
image, _ = client.images.build(fileobj=archive, custom_context=True, dockerfile="Other", target=None, nocache=True)
assert said(image, "/f") == "packed"

try:
    client.images.build(fileobj=io.BytesIO(b"FROM base\nRUN exit 9\n"))
except docker.errors.BuildError as error:
    assert "non-zero code: 9" in str(error), error
else:
    raise AssertionError("a failing step is no failure")
try:
    client.images.build(fileobj=io.BytesIO(b"FORM base\n"))
except docker.errors.APIError as error:
    assert error.status_code == 400 and "unknown instruction" in str(error), error
else:
    raise AssertionError("a wrong instruction is no failure")
