"""docker-py against the daemon at DOCKER_HOST: every method that concerns containers, images, execs and the system."""

import io
import socket
import tarfile
import threading
import time

import docker
import pytest
from docker.types import IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit


@pytest.fixture
def client():
    client = docker.from_env()
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True, v=True)
    client.close()


@pytest.fixture
def sleeper(client):
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, name="sleeper", init=True)


def tar_of(name, content):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_system(client):
    assert client.ping()
    assert client.version()["ApiVersion"]
    assert client.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes"} <= client.df().keys()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nosuch")


def test_run_returns_output_and_raises_on_failure(client):
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
    both = client.containers.run("busybox", "sh -c 'echo a; echo b >&2'", stdout=True, stderr=True, remove=True)
    assert sorted(both.split()) == [b"a", b"b"]
    with pytest.raises(docker.errors.ContainerError) as error:
        client.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 3"], remove=True)
    assert error.value.exit_status == 3 and b"no" in error.value.stderr
    with pytest.raises(docker.errors.APIError):
        client.containers.run("busybox", ["nosuch"], remove=True)


def test_options_arrive(client):
    container = client.containers.create(
        "busybox", "id", name="optioned", hostname="h", environment={"A": "1"}, labels={"l": "m"}, working_dir="/tmp",
        user="root", cap_add=["NET_ADMIN"], cap_drop=["MKNOD"], cpu_shares=100, nano_cpus=500_000_000, mem_limit="64m",
        pids_limit=50, read_only=True, tmpfs={"/t": "size=1m"}, ulimits=[Ulimit(name="nofile", soft=64, hard=128)],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}, ports={"80/tcp": None, "90/udp": ("127.0.0.1", 9090)},
        volumes={"data": {"bind": "/data", "mode": "ro"}}, extra_hosts={"x": "1.2.3.4"}, dns=["1.2.3.4"], tty=True,
        stdin_open=True, stop_signal="SIGUSR1", shm_size="8m", sysctls={"net.ipv4.ip_forward": "1"},
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m"}), mounts=[Mount("/m", "named")],
        healthcheck={"test": ["CMD", "true"], "interval": 1_000_000_000}, init=True, group_add=["10"], oom_score_adj=10)
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert config["Env"] == ["A=1"] and config["Labels"]["l"] == "m" and config["Hostname"] == "h"
    assert host["Memory"] == 64 << 20 and host["NanoCpus"] == 500_000_000 and host["PidsLimit"] == 50
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert host["CapAdd"] in (["NET_ADMIN"], ["CAP_NET_ADMIN"]) and host["ReadonlyRootfs"]
    assert host["Ulimits"][0]["Soft"] == 64 and config["Healthcheck"]["Test"] == ["CMD", "true"]
    assert {mount["Destination"] for mount in container.attrs["Mounts"]} >= {"/data", "/m"}


def test_life_cycle(client, sleeper):
    assert sleeper.status in ("created", "running")
    sleeper.reload()
    assert sleeper.status == "running" and sleeper.short_id == sleeper.id[:12]
    sleeper.pause()
    sleeper.reload()
    assert sleeper.status == "paused"
    sleeper.unpause()
    sleeper.rename("renamed")
    assert client.containers.get("renamed").id == sleeper.id
    sleeper.update(mem_limit="128m", memswap_limit="128m", cpu_shares=200)
    sleeper.reload()
    assert sleeper.attrs["HostConfig"]["Memory"] == 128 << 20
    sleeper.restart(timeout=0)
    sleeper.stop(timeout=1)
    assert sleeper.wait()["StatusCode"] in (137, 143)
    sleeper.start()
    sleeper.kill("SIGKILL")
    assert sleeper.wait(condition="not-running")["StatusCode"] == 137
    sleeper.remove()
    with pytest.raises(docker.errors.NotFound):
        sleeper.reload()


def test_lists_and_filters(client, sleeper):
    client.containers.create("busybox", name="idle", labels={"a": "b"})
    names = lambda **kwargs: {c.name for c in client.containers.list(**kwargs)}
    assert names() == {"sleeper"}
    assert names(all=True) == {"sleeper", "idle"}
    assert names(all=True, filters={"label": "a=b"}) == {"idle"}
    assert names(all=True, filters={"status": "created"}) == {"idle"}
    assert names(all=True, limit=1) == {"idle"}
    assert client.containers.prune()["ContainersDeleted"]
    assert names(all=True) == {"sleeper"}


def test_exec(client, sleeper):
    code, output = sleeper.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, output) == (4, (b"out\n", b"err\n"))
    assert sleeper.exec_run("id -u", user="12").output.strip() == b"12"
    assert sleeper.exec_run("pwd", workdir="/tmp").output.strip() == b"/tmp"
    assert b"K=v" in sleeper.exec_run("env", environment={"K": "v"}).output
    assert sleeper.exec_run("tty", tty=True).output.strip().startswith(b"/dev/pts/")
    streamed = sleeper.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True)
    assert b"".join(streamed.output).split() == [b"1", b"2"]
    assert not sleeper.exec_run("sleep 1", detach=True).output
    made = client.api.exec_create(sleeper.id, ["cat"], stdin=True)
    raw = client.api.exec_start(made["Id"], socket=True)
    raw._sock.sendall(b"typed\n")
    raw._sock.shutdown(socket.SHUT_WR)
    assert b"typed" in raw.read()
    assert client.api.exec_inspect(made["Id"])["ExitCode"] == 0
    made = client.api.exec_create(sleeper.id, ["sleep", "1000"], tty=True)
    client.api.exec_start(made["Id"], detach=True)
    client.api.exec_resize(made["Id"], height=10, width=20)


def test_logs(client):
    container = client.containers.run("busybox", ["sh", "-c", "echo one; echo two; echo three"], detach=True)
    container.wait()
    assert container.logs() == b"one\ntwo\nthree\n"
    assert container.logs(tail=1) == b"three\n"
    assert container.logs(timestamps=True).count(b"Z ") == 3
    assert container.logs(since=int(time.time()) + 100) == b""
    assert container.logs(until=1) == b""
    follower = client.containers.run("busybox", ["sh", "-c", "echo a; sleep 0.3; echo b"], detach=True)
    assert b"".join(follower.logs(stream=True, follow=True)) == b"a\nb\n"


def test_attach(client):
    container = client.containers.create("busybox", ["cat"], stdin_open=True)
    raw = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw._sock.sendall(b"hello\n")
    raw._sock.shutdown(socket.SHUT_WR)
    assert b"hello" in raw.read()
    talker = client.containers.create("busybox", ["sh", "-c", "echo x; echo y"])
    stream = talker.attach(stream=True, logs=True)
    talker.start()
    assert b"".join(stream) == b"x\ny\n"
    terminal = client.containers.run("busybox", ["sleep", "1000"], tty=True, detach=True)
    terminal.resize(height=10, width=20)


def test_files(client, sleeper):
    assert sleeper.put_archive("/tmp", tar_of("file", b"content"))
    stream, stat = sleeper.get_archive("/tmp/file")
    assert stat["name"] == "file" and stat["size"] == 7
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("file").read() == b"content"
    assert {"Path": "/tmp/file", "Kind": 1} in sleeper.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(sleeper.export()))) as tar:
        names = tar.getnames()
        assert "tmp/file" in names and "proc" in names
        # Of what is mounted there nothing is the container's own.
        assert not [name for name in names if name.startswith("proc/")]
    with pytest.raises(docker.errors.NotFound):
        sleeper.get_archive("/nosuch")


def test_top_stats_and_ports(client):
    container = client.containers.run("busybox", ["sh", "-c", "echo ok > /index.html; httpd -f -p 80 -h /"], detach=True,
                                      ports={"80/tcp": None})
    container.reload()
    assert any("httpd" in " ".join(row) for row in container.top()["Processes"])
    stats = container.stats(stream=False)
    assert stats["memory_stats"] and stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert next(container.stats(stream=True, decode=True))["name"].endswith(container.name)
    port = int(container.ports["80/tcp"][0]["HostPort"])
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as web:
                web.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
                answer = b""
                while piece := web.recv(4096):
                    answer += piece
            assert b"ok" in answer
            break
        except OSError:
            assert time.monotonic() < deadline, "the published port does not answer"


def test_events(client):
    begun = time.time() - 1
    client.containers.run("busybox", ["true"], name="told", remove=True)
    until = int(time.time()) + 2
    actions = [e["Action"] for e in client.events(since=int(begun), until=until, decode=True, filters={"container": "told"})]
    assert actions == ["create", "attach", "start", "die", "destroy"] or set(actions) >= {"create", "start", "die", "destroy"}
    live = client.events(decode=True, filters={"type": "container", "event": "start"})
    starter = threading.Timer(0.2, lambda: client.containers.run("busybox", ["true"]))
    starter.start()
    assert next(live)["Action"] == "start"
    live.close()
    starter.join()


def test_images(client):
    image = client.images.get("busybox")
    assert "busybox:latest" in image.tags and image.history()
    assert image.tag("copy", "one")
    assert client.images.get("copy:one").id == image.id
    archive = b"".join(image.save(named=True))
    client.images.remove("copy:one")
    loaded = client.images.load(archive)
    assert loaded[0].id == image.id
    assert any(image.id == one.id for one in client.images.list(name="busybox"))
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuch")
    container = client.containers.run("busybox", ["touch", "/new"], detach=True)
    container.wait()
    made = container.commit("made", "1", message="text", author="me", changes=["ENV A=b"])
    assert "A=b" in made.attrs["Config"]["Env"] and made.attrs["Author"] == "me"
    assert client.containers.run("made:1", ["ls", "/new"], remove=True) == b"/new\n"
    client.images.remove("made:1", force=True)
    client.images.prune()
    imported = client.api.import_image_from_data(tar_of("f", b"x"), repository="imported", tag="1")
    assert "sha256:" in imported
    client.images.remove("imported:1")


def test_volumes(client):
    volume = client.volumes.create("kept", labels={"l": "m"})
    assert volume.attrs["Driver"] == "local"
    client.containers.run("busybox", ["sh", "-c", "echo x > /v/f"], volumes={"kept": {"bind": "/v"}}, remove=True)
    assert client.containers.run("busybox", ["cat", "/v/f"], volumes=["kept:/v:ro"], remove=True) == b"x\n"
    assert [v.name for v in client.volumes.list(filters={"label": "l=m"})] == ["kept"]
    volume.remove()
    client.volumes.prune()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("kept")


def test_networks(client):
    pool = IPAMConfig(pool_configs=[IPAMPool(subnet="10.77.0.0/24")])
    network = client.networks.create("netted", ipam=pool, labels={"l": "m"})
    one = client.containers.run("busybox", ["sleep", "1000"], name="one", network="netted", detach=True)
    two = client.containers.run("busybox", ["sleep", "1000"], name="two", detach=True)
    network.connect(two, aliases=["second"])
    assert one.exec_run("ping -c 1 -W 5 second").exit_code == 0
    network.reload()
    assert {c.name for c in network.containers} == {"one", "two"}
    network.disconnect(two)
    one.remove(force=True)
    network.remove()
    client.networks.prune()
