"""What runs inside the sandbox. sandbox.py starts this file for each program, and nobody else does.

    python -I -S sandbox_inside.py launch ...    # restricts itself, then becomes a new interpreter
    python -I -S sandbox_inside.py work          # that one: runs a program, or a suite of asserts
    python -I -S sandbox_inside.py weak SECONDS  # the only one, where nothing can be restricted

Two interpreters, because the restrictions need ctypes, which a program must never get hold of.
Messages come in as `marshal`, for what is outside can be trusted, and go out as lines of JSON.
"""

import marshal
import os
import sys
from _json import encode_basestring_ascii as quote  # `import json` takes longer than most programs

IN, OUT = 3, 4  # file descriptors of the messages; 0 is a program's stdin, 1 and 2 lead nowhere
LINUX = sys.platform == "linux"
ORDER = sys.byteorder

# <linux/prctl.h>, <linux/sched.h>
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 1 << 27, 1 << 28, 1 << 29, 1 << 30
SIGKILL = 9

# <linux/landlock.h>: three system calls, and accesses to files
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, READ_FILE, READ_FOLDER = 1, 4, 8
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store")

# What seccomp refuses: system calls with their numbers, by the machine's name
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # <linux/audit.h>
REFUSED = {
    "x86_64": """clone 56 fork 57 vfork 58 clone3 435 socket 41 io_uring_setup 425 ptrace 101 kill
        62 tkill 200 tgkill 234 rt_sigqueueinfo 129 rt_tgsigqueueinfo 297 pidfd_send_signal 424""",
    "aarch64": """clone 220 clone3 435 socket 198 io_uring_setup 425 ptrace 117 kill 129 tkill 130
        tgkill 131 rt_sigqueueinfo 138 rt_tgsigqueueinfo 240 pidfd_send_signal 424""",
}

# Events of the audit hook [PEP 578] that a pure function may cause, besides reading the library
ALLOWED = """import exec compile marshal.load marshal.loads marshal.dumps os.listdir os.scandir
sys._getframe sys._getframemodulename object.__getattr__ object.__setattr__ builtins.id
function.__new__ array.__new__ pickle.find_class time.sleep builtins.input
builtins.input/result"""
# Functions that affect other processes, or the system, without causing any event
SILENT = """pidfd_open pidfd_send_signal mknod mkfifo setpriority nice sched_setaffinity
sched_setscheduler sched_setparam setsid setpgid memfd_create unshare setns"""


# ------------------------------------------------------------------------ the first interpreter
def launch(python: str, parent: str, memory: str, seconds: str, *layers: str) -> None:
    """Set limits (memory in bytes) and layers ("namespaces", "landlock", "seccomp"), then become
    the second interpreter. An exception if any of it is impossible: then nothing is run."""
    import resource  # here, while files can still be opened

    move_descriptors()
    if LINUX:
        libc("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if "namespaces" in layers:
        _namespaces()
    elif LINUX:
        for capability in range(64):  # what root can do ends at exec; others have nothing to drop
            libc("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0, check=False)
    if LINUX:
        libc("prctl", PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent died before that took effect")
    if "namespaces" in layers:
        _first_process()
    if "landlock" in layers:
        _landlock(python)
    if "seccomp" in layers:
        _seccomp()
    limits = {"CPU": int(seconds), "FSIZE": 0, "NOFILE": 16, "NPROC": 0, "CORE": 0}
    if LINUX:  # macOS has no limit on address space
        limits["AS"] = int(memory)
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    os.execv(python, [python, "-I", "-S", __file__, "work"])


def move_descriptors() -> None:
    """From where the parent can put them to where they are used; 2 was a program's stdin."""
    os.dup2(0, IN)
    os.dup2(1, OUT)
    os.dup2(2, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        os.dup2(nowhere, fd)


def libc(function: str, *arguments, check: bool = True) -> int:
    """Call a function of the C library. OSError if it fails."""
    import ctypes  # never in the second interpreter

    result = getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments)
    if check and result < 0:
        raise OSError(ctypes.get_errno(), f"{function} failed")
    return result


def _namespaces() -> None:
    """New user, network, IPC and process namespaces [namespaces(7)]. In them this process is
    nobody (65534), and loses all capabilities at exec."""
    ids = {"uid": os.getuid(), "gid": os.getgid()}
    libc("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWPID)
    with open("/proc/self/setgroups", "w") as f:
        f.write("deny")
    for kind, number in ids.items():
        with open(f"/proc/self/{kind}_map", "w") as f:
            f.write(f"65534 {number} 1")


def _first_process() -> None:
    """Go on as process 1 of the process namespace, whose end is the end of all others in it. The
    launcher stays outside and waits for that."""
    import _signal as signal  # `import signal` takes as long as all the rest
    import select

    alive, write_end = os.pipe()  # closed once the launcher is dead
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        os.close(IN)
        os.close(OUT)
        os.waitpid(child, 0)
        os._exit(0)
    libc("prctl", PR_SET_PDEATHSIG, SIGKILL)  # the parent's is not inherited
    os.close(write_end)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # the launcher died before that took effect
    os.close(alive)


def _landlock(python: str) -> None:
    """No file but the interpreter's and the system's libraries, and these to read only; no TCP; no
    signals to processes outside [landlock(7)]."""
    import ctypes

    version = libc("syscall", CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1  # all that this version knows
    network = 3 if version >= 4 else 0  # bind and connect
    scopes = 3 if version >= 6 else 0  # abstract sockets and signals
    attributes = (ctypes.c_uint64 * 3)(files, network, scopes)
    size = ctypes.c_size_t(8 if version < 4 else 16 if version < 6 else 24)
    ruleset = libc("syscall", CREATE_RULESET, attributes, size, 0)
    folders = (sys.base_prefix, os.path.dirname(os.__file__), *LIBRARIES)
    rules = [(folder, EXECUTE | READ_FILE | READ_FOLDER) for folder in folders]
    for path, access in [*rules, (python, EXECUTE | READ_FILE), (__file__, READ_FILE)]:
        if os.path.exists(path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            beneath = access.to_bytes(8, ORDER) + fd.to_bytes(4, ORDER)  # a packed struct
            libc("syscall", ADD_RULE, ruleset, 1, beneath, 0)
            os.close(fd)
    libc("syscall", RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _seccomp() -> None:
    """No further processes or threads, sockets or signals [seccomp(2)]: not for root either, whom
    RLIMIT_NPROC does not bind."""
    import ctypes

    audit, refused = MACHINES[os.uname().machine], REFUSED[os.uname().machine].split()[1::2]
    load, equal, at_least, verdict = 0x20, 0x15, 0x35, 0x06
    kill, allow, refuse = 0x80000000, 0x7FFF0000, 0x00050001  # the last: with EPERM
    checks = [(at_least, 0x40000000)]  # x86's third set of system calls
    checks += [(equal, int(number)) for number in refused]
    # a program of (instruction, steps to skip if true, if false, constant)
    program = [(load, 0, 0, 4), (equal, 1, 0, audit), (verdict, 0, 0, kill), (load, 0, 0, 0)]
    program += [(check, len(checks) - i, 0, value) for i, (check, value) in enumerate(checks)]
    program += [(verdict, 0, 0, allow), (verdict, 0, 0, refuse)]
    code = b"".join(
        instruction.to_bytes(2, ORDER) + bytes(skips) + constant.to_bytes(4, ORDER)
        for instruction, *skips, constant in program
    )
    buffer = ctypes.create_string_buffer(code)
    # struct sock_fprog; both machines have 8 bytes, the low ones first
    filter_ = (ctypes.c_uint64 * 2)(len(program), ctypes.addressof(buffer))
    libc("prctl", PR_SET_SECCOMP, 2, filter_, 0, 0)  # SECCOMP_MODE_FILTER


# ----------------------------------------------------------------------- the second interpreter
def work() -> None:
    """Read the job, {"secret": ..., ...}, and do it. Each line that goes out begins with the
    secret, so that what a program prints is not taken for an answer."""
    source = os.fdopen(IN, "rb")
    job = marshal.load(source)
    start = job["secret"].encode()

    # what these two use is bound now: a program may replace it where it comes from
    def receive(load=marshal.load):
        message = load(source)
        return read_text(message[0]) if type(message) is list else message

    def send(message, write=os.write, pack=pack):
        data = b"\n" + start + pack(message).encode() + b"\n"
        while data:
            data = data[write(OUT, data) :]

    guard()
    if "suite" in job:
        judge(job, receive, send)
    elif "whole" in job:
        run_whole(job, send)
    else:
        answer(job, receive, send)


def guard() -> None:
    """From here on, refuse whatever a pure function does not need [PEP 578], and remove the
    functions that act without an audit event."""
    import _signal

    system = sys.modules[os.name]  # posix, on Windows nt
    allowed, lib = frozenset(ALLOWED.split()), os.path.dirname(os.__file__) + os.sep
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def hook(event, args, allowed=allowed, lib=lib, writes=writes, error=PermissionError, str=str):
        if event == "open":
            path, _, flags = args
            inside = type(path) is str and path.startswith(lib) and ".." not in path
            if (inside and not flags & writes) or (type(path) is int and path in (0, 1, 2)):
                return
        elif event == "import" and args[0] in ("ctypes", "_ctypes", "_posixsubprocess"):
            pass
        elif event in allowed:
            return
        raise error(event)

    for module in (os, system, _signal):
        for name in SILENT.split():
            vars(module).pop(name, None)
    sys.addaudithook(hook)


def answer(job: dict, receive, send, leave=os._exit) -> None:
    """Execute job["program"] and job["setup"]. Then for each call that comes in, (function,
    arguments, keywords) or an expression's text, send [True, value] or [False, error's name]."""
    space, problem = new_module("program"), ""
    try:
        exec(compile(job["program"], "program", "exec"), space)
        exec(compile(job.get("setup", ""), "setup", "exec"), space)
    except BaseException as e:
        problem = type(e).__name__
    while True:
        try:
            call = receive()
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
            send(reply)
        except TypeError:
            send([False, "not a plain value"])
        except ValueError:  # a number too long to be written out
            send([False, "ValueError"])


def run_whole(job: dict, send, leave=os._exit) -> None:
    """Run job["program"] as a script. What it prints goes out as it is; at the very end, after its
    own atexit functions, True, if no exception but SystemExit ended it."""
    import atexit
    import builtins

    def end():
        for stream in (sys.stdout, sys.__stdout__):
            try:
                stream.flush()
            except Exception:  # it may be closed, or anything else by now
                continue
        send(True)

    def open_(file, *arguments, open=open, **keywords):  # the path would lead to a file
        return open(0 if file == "/dev/stdin" else file, *arguments, **keywords)

    os.dup2(OUT, 1)
    sys.argv[1:] = []
    builtins.open = open_
    builtins.exit = builtins.quit = sys.exit  # `-S` leaves them out
    if "threading" in job["program"]:  # often for a larger stack only
        import threading

        threading.Thread.start = lambda thread: thread.run()
        threading.Thread.join = lambda thread, timeout=None: None
    atexit.register(end)
    try:
        exec(compile(job["program"], "program", "exec"), new_module("__main__"))
    except SystemExit:
        return
    except BaseException:
        leave(1)


def judge(job: dict, receive, send) -> None:
    """Run a trusted suite and send whether it ran through. The function under test is elsewhere:
    its arguments go out, its values come in. One that was never called has not passed."""
    called = False

    def under_test(*arguments, **keywords):
        nonlocal called
        called = True
        send([job["entry"], arguments, keywords])
        ok, value, error = receive()
        if not ok:
            raise RuntimeError(error)
        return value

    space = new_module("suite")
    try:
        exec(compile(job["prelude"], "prelude", "exec"), space)
        space[job["entry"]] = under_test
        exec(compile(job["suite"], "suite", "exec"), space)
        passed = called
    except BaseException:
        passed = False
    send(passed)


def new_module(name: str) -> dict:
    """The namespace of a new, empty module."""
    sys.modules[name] = type(sys)(name)
    return sys.modules[name].__dict__


def read_text(text: str) -> object:
    """A message with Fractions or Decimals, which marshal cannot write."""
    from decimal import Decimal
    from fractions import Fraction

    names = {"Fraction": Fraction, "Decimal": Decimal, "inf": float("inf"), "nan": float("nan")}
    return eval(text, names)


def plain_kind(value: object) -> type:
    """The plain type that decides what a value is equal to: tuple for a namedtuple, int for an
    IntEnum, dict for those of `collections`. Other types that say for themselves what they are
    equal to, and types that are not plain, stay."""
    kind = type(value)
    for plain in (int, float, complex, str, bytes, tuple, list, set, frozenset, dict):
        ours = kind.__eq__ is plain.__eq__ or (plain is dict and kind.__module__ == "collections")
        if kind is not bool and isinstance(value, plain) and ours:
            return plain
    return kind


def pack(value: object, depth: int = 50) -> str:
    """A value of plain types as JSON; what JSON lacks becomes an object of one entry, such as
    {"tuple": [...]}. TypeError for any other value."""
    kind = plain_kind(value)
    if depth < 0:
        raise TypeError("not a plain value")
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return int.__repr__(value)
    if kind is float:
        text = float.__repr__(value)
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(text, text)
    if kind is str:
        return quote(value)
    if kind is bytes:
        return f'{{"bytes": {quote(bytes.decode(value, "latin-1"))}}}'
    if (kind.__module__, kind.__name__) == ("fractions", "Fraction"):
        value = (value.numerator, value.denominator)
    elif (kind.__module__, kind.__name__) == ("decimal", "Decimal"):
        value = (str(value),)
    elif kind is complex:
        value = (value.real, value.imag)
    elif kind is dict:
        value = list(value.items())
    elif not any(kind is k for k in (list, tuple, set, frozenset)):
        raise TypeError("not a plain value")
    items = "[" + ", ".join([pack(v, depth - 1) for v in value]) + "]"
    return items if kind is list else f'{{"{kind.__name__}": {items}}}'


if __name__ == "__main__":
    if sys.argv[1] == "launch":
        launch(*sys.argv[2:])
    if sys.argv[1] == "weak":
        import faulthandler

        move_descriptors()
        faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)  # without a parent too
    work()
