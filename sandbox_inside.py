"""What runs inside the sandbox: sandbox.py starts this file twice for each program, and nobody else does.

    python -I -S sandbox_inside.py launch ...    # shuts the doors through ctypes, then becomes a fresh interpreter that never saw ctypes
    python -I -S sandbox_inside.py work          # that one: executes the program and answers calls, or runs a suite

Words from outside come in by `marshal` (they can be trusted); words from inside go out as lines of JSON, which no reader has to trust.
"""

import marshal
import os
import sys
from _json import encode_basestring_ascii as quote  # `import json` would take longer than most programs

IN, OUT = 3, 4  # file descriptors; 0, 1 and 2 lead nowhere


def launch(python: str, parent: str, memory: str, seconds: str, *doors: str) -> None:
    """Limits on memory (bytes), CPU seconds, files and processes, and the wanted doors: "namespaces", "landlock", "seccomp". Anything
    that cannot be had is an exception, and then nothing is run."""
    import ctypes
    import resource

    os.dup2(0, IN)
    os.dup2(1, OUT)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    libc = ctypes.CDLL(None, use_errno=True)

    def must(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), "a door does not shut")
        return result

    def die_with_parent() -> None:
        if linux:
            must(libc.prctl(1, 9))  # PR_SET_PDEATHSIG, SIGKILL

    linux = sys.platform == "linux"
    if linux:
        must(libc.prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS
    if "namespaces" in doors:
        _namespaces(libc, must)
    elif linux:
        for capability in range(64):
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: what root can do ends at exec; others have nothing to drop
    die_with_parent()
    if os.getppid() != int(parent):
        sys.exit("the parent died before that took hold")
    if "namespaces" in doors:
        _first_process(die_with_parent)
    if "landlock" in doors:
        _landlock(libc, must, python)
    if "seccomp" in doors:
        _seccomp(libc, must)
    limits = [(resource.RLIMIT_CPU, int(seconds)), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0)]
    for limit, value in [*limits, (resource.RLIMIT_AS, int(memory))] if linux else limits:  # macOS has no limit on address space
        resource.setrlimit(limit, (value, value))
    os.execv(python, [python, "-I", "-S", __file__, "work"])


def _namespaces(libc, must) -> None:
    """User, network, IPC and process namespaces of its own [namespaces(7)]; in them this is nobody, who loses all capabilities at exec."""
    ids = ("uid", os.getuid()), ("gid", os.getgid())
    must(libc.unshare(0x10000000 | 0x40000000 | 0x08000000 | 0x20000000))  # CLONE_NEWUSER, NEWNET, NEWIPC, NEWPID
    with open("/proc/self/setgroups", "w") as f:
        f.write("deny")
    for kind, number in ids:
        with open(f"/proc/self/{kind}_map", "w") as f:
            f.write(f"65534 {number} 1")


def _first_process(die_with_parent) -> None:
    """Go on as process 1 of the process namespace: its end is the end of all others in it. The launcher waits outside for that."""
    import _signal as signal  # `import signal` takes as long as all the rest
    import select

    alive, held = os.pipe()
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        os.close(IN)
        os.close(OUT)
        os.waitpid(child, 0)
        os._exit(0)
    die_with_parent()
    os.close(held)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # the launcher died before that took hold
    os.close(alive)


def _landlock(libc, must, python: str) -> None:
    """No file but the interpreter's own and the system's libraries, and these only to read; no TCP; no signals outwards [landlock(7)]."""
    import ctypes

    abi = must(libc.syscall(444, None, ctypes.c_size_t(0), 1))  # landlock_create_ruleset, LANDLOCK_CREATE_RULESET_VERSION
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1  # all accesses that this version knows
    network, scopes = 3 if abi >= 4 else 0, 3 if abi >= 6 else 0  # bind and connect; abstract sockets and signals
    attributes = (ctypes.c_uint64 * 3)(files, network, scopes)
    ruleset = must(libc.syscall(444, attributes, ctypes.c_size_t(8 if abi < 4 else 16 if abi < 6 else 24), 0))
    execute_read_list = 1 | 4 | 8
    for path, access in ((sys.base_prefix, execute_read_list), (os.path.dirname(os.__file__), execute_read_list), (python, 1 | 4), (__file__, 4),
                         *((p, execute_read_list) for p in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store"))):
        if os.path.exists(path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            rule = access.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)  # struct landlock_path_beneath_attr, packed
            must(libc.syscall(445, ruleset, 1, rule, 0))  # landlock_add_rule, LANDLOCK_RULE_PATH_BENEATH
            os.close(fd)
    must(libc.syscall(446, ruleset, 0))  # landlock_restrict_self
    os.close(ruleset)


def _seccomp(libc, must) -> None:
    """No further processes or threads, sockets, or signals, for root neither, whom RLIMIT_NPROC does not bind [seccomp(2)]."""
    import ctypes

    architecture, refused = {  # clone, fork, vfork, clone3, socket, io_uring_setup, ptrace, kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal
        "x86_64": (0xC000003E, (56, 57, 58, 435, 41, 425, 101, 62, 200, 234, 129, 297, 424)),
        "aarch64": (0xC00000B7, (220, 435, 198, 425, 117, 129, 130, 131, 138, 240, 424)),
    }[os.uname().machine]
    load, equal, at_least, ret = 0x20, 0x15, 0x35, 0x06  # (instruction, where to if true, if false, constant) of a program that ends in a verdict
    checks = [(at_least, 0x40000000), *((equal, number) for number in refused)]  # the former: x86's third set of calls
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (ret, 0, 0, 0x80000000), (load, 0, 0, 0),  # the architecture, or death; then the call's number
               *((check, len(checks) - i, 0, number) for i, (check, number) in enumerate(checks)), (ret, 0, 0, 0x7FFF0000), (ret, 0, 0, 0x00050001)]  # allowed; EPERM
    code = b"".join(a.to_bytes(2, sys.byteorder) + bytes((b, c)) + k.to_bytes(4, sys.byteorder) for a, b, c, k in program)
    held = ctypes.create_string_buffer(code)
    sock_fprog = (ctypes.c_uint64 * 2)(len(program), ctypes.addressof(held))  # both machines have 8 bytes, the low ones first
    must(libc.prctl(22, 2, sock_fprog, 0, 0))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


# ---------------------------------------------------------------------------------------------- the second interpreter


def pack(value: object, depth: int = 50) -> str:
    """A value of plain types as JSON; what JSON lacks is an object of one entry, {"tuple": [...]}. TypeError for any other value.

    The dicts of `collections` (Counter, defaultdict, OrderedDict) count as dicts, to which Python finds them equal.
    """
    if depth < 0:
        raise TypeError("not a plain value")
    kind = next((k for k in (bool, int, float, str, bytes, complex, list, tuple, set, frozenset, dict) if type(value) is k), None)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return repr(value)
    if kind is float:
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(repr(value)) or repr(value)
    if kind is str:
        return quote(value)
    if kind is bytes:
        return f'{{"bytes": {quote(value.decode("latin-1"))}}}'
    if kind is complex:
        value = (value.real, value.imag)
    if isinstance(value, dict) and (kind is dict or type(value).__module__ == "collections"):
        kind, value = dict, list(value.items())
    if kind is None:
        raise TypeError("not a plain value")
    items = "[" + ", ".join([pack(v, depth - 1) for v in value]) + "]"
    return items if kind is list else f'{{"{kind.__name__}": {items}}}'


def guard() -> None:
    """From here on, turn down whatever a pure function has no need of [PEP 578], and take away what acts without being announced."""
    import _signal
    import posix

    allowed = frozenset(("import", "exec", "compile", "marshal.load", "marshal.loads", "marshal.dumps", "os.listdir", "os.scandir", "sys._getframe", "sys._getframemodulename",
                         "object.__getattr__", "object.__setattr__", "builtins.id", "function.__new__", "array.__new__", "pickle.find_class", "time.sleep"))
    library, writing = os.path.dirname(os.__file__) + "/", os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def hook(event, args, allowed=allowed, library=library, writing=writing, refusal=PermissionError, text=str):
        if event == "open":
            path, _, flags = args
            if type(path) is text and path.startswith(library) and ".." not in path and not flags & writing:
                return
        elif event in allowed and not (event == "import" and args[0] in ("ctypes", "_ctypes", "_posixsubprocess")):
            return
        raise refusal(event)

    for module in (os, posix, _signal):
        for name in ("pidfd_open", "pidfd_send_signal", "mknod", "mkfifo", "setpriority", "nice", "sched_setaffinity", "sched_setscheduler", "sched_setparam",
                     "setsid", "setpgid", "memfd_create", "unshare", "setns"):
            if hasattr(module, name):
                delattr(module, name)
    sys.addaudithook(hook)


def work() -> None:
    """The first word is the job, {"secret", ...}; each line that goes out begins with the secret, so that printing is not answering."""
    source = os.fdopen(IN, "rb")
    job = marshal.load(source)
    start = job["secret"].encode()

    def hear(load=marshal.load):
        return load(source)

    def say(message, write=os.write, pack=pack):
        data = b"\n" + start + pack(message).encode() + b"\n"
        while data:
            data = data[write(OUT, data) :]

    guard()
    if "suite" in job:
        judge(job, hear, say)
    else:
        answer(job, hear, say)


def module(name: str) -> dict:
    """The namespace of a new, empty module."""
    sys.modules[name] = type(sys)(name)
    return sys.modules[name].__dict__


def answer(job: dict, hear, say, leave=os._exit) -> None:
    """Execute job["program"] and job["setup"]; then for each call that comes in, (function, arguments, keywords) or the text of an
    expression, say [whether there is a value, the value or the error's name]."""
    space, problem = module("program"), ""
    try:
        exec(compile(job["program"], "program", "exec"), space)
        exec(compile(job["setup"], "setup", "exec"), space)
    except BaseException as e:
        problem = type(e).__name__
    while True:
        try:
            call = hear()
        except EOFError:
            leave(0)
        reply = [False, problem]
        try:
            if not problem and isinstance(call, str):
                reply = [True, eval(compile(call, "call", "eval"), space)]
            elif not problem:
                name, arguments, keywords = call
                reply = [True, space[name](*arguments, **keywords)]
        except BaseException as e:
            reply = [False, type(e).__name__]
        try:
            say(reply)
        except TypeError:
            say([False, "not a plain value"])
        except ValueError:  # a number too long to be written out
            say([False, "ValueError"])


def judge(job: dict, hear, say) -> None:
    """Run a trusted suite: the function under test lives elsewhere, what it is called with goes out, what it returns comes in. Ends by
    saying whether the suite ran through; a function that was never called has not passed."""
    called = False

    def under_test(*arguments, **keywords):
        nonlocal called
        called = True
        say([job["entry"], arguments, keywords])
        ok, value = hear()
        if not ok:
            raise RuntimeError(value)
        return value

    space = module("suite")
    try:
        exec(compile(job["prelude"], "prelude", "exec"), space)
        space[job["entry"]] = under_test
        exec(compile(job["suite"], "suite", "exec"), space)
        passed = called
    except BaseException:
        passed = False
    say(passed)


if __name__ == "__main__":
    if sys.argv[1] == "launch":
        launch(*sys.argv[2:])
    work()
