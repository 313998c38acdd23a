"""testcontainers for Python against the daemon at DOCKER_HOST, without Ryuk."""

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs


def test_a_container_starts_answers_and_goes():
    script = "echo hello > /index.html; echo ready; exec httpd -f -p 8080 -h /"
    with DockerContainer("busybox:latest").with_command(["sh", "-c", script]).with_exposed_ports(8080) as container:
        wait_for_logs(container, "ready", timeout=20)
        assert int(container.get_exposed_port(8080)) > 0
        code, output = container.exec(["wget", "-qO-", "http://127.0.0.1:8080/index.html"])
        assert (code, output) == (0, b"hello\n")
        name = container.get_wrapped_container().name
    names = [one.name for one in docker.from_env().containers.list(all=True)]
    assert name not in names


def test_environment_volumes_and_names(tmp_path):
    (tmp_path / "file").write_text("from the host")
    container = (DockerContainer("busybox:latest").with_env("KEY", "value").with_name("named-by-test")
                 .with_volume_mapping(str(tmp_path), "/mnt", "ro").with_command("sleep 1000"))
    with container:
        assert container.exec(["sh", "-c", "echo $KEY"]).output == b"value\n"
        assert container.exec("cat /mnt/file").output == b"from the host"
        assert container.get_wrapped_container().name == "named-by-test"
        out, _ = container.get_logs()
        assert out == b""


def test_containers_reach_each_other_by_name_in_a_network():
    with Network() as network:
        server = DockerContainer("busybox:latest").with_command("sleep 1000").with_network(network)
        with server.with_network_aliases("server"):
            peer = DockerContainer("busybox:latest").with_command("sleep 1000").with_network(network)
            with peer:
                assert peer.exec("ping -c 1 -W 5 server").exit_code == 0
