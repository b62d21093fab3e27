"""A workspace, a command, a file: run it after `eval "$(bastide env)"`."""

from bastide.client import Bastide, Exited, Output

with Bastide.from_env() as cloud:
    workspace = cloud.workspaces.create("debian-12", name="python example", memory_mb=256)
    print(workspace.id, "is ready")
    try:
        runtime = cloud.workspaces.runtime(workspace.id)

        runtime.files.write("/root/sum.py", "print(sum(range(1_000_001)))\n")
        print(runtime.exec.run(["python3", "/root/sum.py"]).check().stdout, end="")

        with runtime.exec.stream("for i in 1 2 3; do echo step $i; sleep 0.2; done") as events:
            for event in events:
                if isinstance(event, Output):
                    print(event.data.decode(), end="", flush=True)
                elif isinstance(event, Exited):
                    print("ended with code", event.exit_code)
    finally:
        cloud.workspaces.delete(workspace.id)
