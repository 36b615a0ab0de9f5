"""What a text among the values may look like, by kind: the pattern, and the words in which the chart refuses anything
else. JSON Schema has patterns too, but answers with the pattern; the chart says what it expects.

The limits are those of Kubernetes 1.29 to 1.37 (apimachinery's validation) unless a kind says otherwise. Patterns are
Go's and Python's alike: no look-ahead, and whole numbers without sign.
"""

from dataclasses import dataclass

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL_TEXT = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_WHOLE = r"[0-9]{0,15}[1-9][0-9]{0,15}(\.[0-9]{1,9})?"
_ABOVE_ZERO = rf"({_WHOLE}|[0-9]{{1,15}}\.[0-9]{{0,8}}[1-9][0-9]{{0,8}})"
_IN_PATH = r"[^/:$\x00-\x20\x7f]"
# no dollar sign, because Kubernetes reads $(NAME) in commands and variables
_STEP = rf"([^/:$.\x00-\x20\x7f]{_IN_PATH}*|\.[^/:$.\x00-\x20\x7f]{_IN_PATH}*|\.\.{_IN_PATH}+)"
_INTERFACE = r"[-A-Za-z0-9_.@]{1,15}"
_ADAPTER = r"[-A-Za-z0-9_.]{1,63}(:[0-9]{1,3})?"


@dataclass(frozen=True)
class Kind:
    """A kind of text: `pattern` matches all of it, `most` is its length at most, and `expected` says so in words."""

    pattern: str
    expected: str
    most: int = 253


KINDS = {
    "name": Kind(
        _DOMAIN,
        "the name of a Kubernetes object: lower-case letters, digits, dashes and dots, a letter or digit at each end",
    ),
    "short name": Kind(
        _DNS_LABEL,
        "a name of at most 63 lower-case letters, digits and dashes, a letter or digit at each end",
        63,
    ),
    "label": Kind(
        rf"({_LABEL_TEXT})?",
        "a label's value: at most 63 letters, digits, dashes, underscores and dots, a letter or digit at each end",
        63,
    ),
    "key": Kind(
        rf"({_DOMAIN}/)?{_LABEL_TEXT}",
        "the name of a label or annotation: at most 63 letters, digits, dashes, underscores and dots, with a domain "
        "and a slash before them if need be",
        317,
    ),
    "resource": Kind(
        rf"{_DOMAIN}/{_LABEL_TEXT}",
        "the name of a resource that a device plug-in offers, with its domain: for example nvidia.com/gpu",
        253,
    ),
    "resource or plain": Kind(
        rf"({_DOMAIN}/)?{_LABEL_TEXT}",
        "the name of a resource: hugepages-2Mi, or with the domain of the device plug-in that offers it",
    ),
    "quantity": Kind(
        rf"{_ABOVE_ZERO}([kMGTPE]|[KMGTPE]i)?",
        "an amount of bytes above 0: 8Gi, 512Mi",
        24,
    ),
    "CPUs": Kind(rf"{_ABOVE_ZERO}|[1-9][0-9]{{0,8}}m", 'a number of CPUs above 0: 4, "1.5" or 500m', 24),
    "tag": Kind(
        r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,127}",
        "an image's tag: at most 128 letters, digits, underscores, dashes and dots, without a space at either end",
        128,
    ),
    "digest": Kind(
        r"sha256:[0-9a-f]{64}", "an image's digest: sha256: and 64 lower-case hexadecimal digits", 71
    ),
    "Ray version": Kind(
        r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}", "Ray's version in the image, such as 2.58.0", 14
    ),
    "mount path": Kind(
        rf"(/{_STEP})+/?",
        "an absolute path, without `..`, colons, spaces and dollar signs",
        4096,
    ),
    "folder": Kind(
        rf"{_STEP}(/{_STEP})*/?",
        "a folder of the volume as a relative path, without `..`, colons, spaces, dollar signs and a slash at its "
        "start",
        4096,
    ),
    "address": Kind(
        r"([0-9]{1,3}\.){3}[0-9]{1,3}|[0-9a-fA-F]*:[0-9a-fA-F:.]+", "an IP address: 10.0.0.1 or fd00::1", 45
    ),
    "file name": Kind(
        r"\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*",
        "a file's name of letters, digits, dashes, underscores and dots",
    ),
    "run name": Kind(
        r"[a-zA-Z0-9][a-zA-Z0-9._-]*",
        "a folder's name of at most 200 letters, digits, dots, underscores and dashes that starts with a letter or "
        "digit",
        200,
    ),
    "shell": Kind(
        r"[^\x00-\x08\x0b-\x1f\x7f]*",
        "shell commands without control characters, lines ended by a line feed alone",
        131072,
    ),
    "override": Kind(
        r"[^=\x00-\x20\x7f]+=[^\x00-\x08\x0a-\x1f\x7f]*",
        "setting=value on one line, such as actor.adam.lr=1e-6",
        65536,
    ),
    "variable": Kind(
        r"(\.?[-_a-zA-Z]|\.)[-._a-zA-Z0-9]*",
        "the name of an environment variable: letters, digits, underscores, dashes and dots, not starting with a digit",
    ),
    "NCCL variable": Kind(
        r"(NCCL|GLOO|TORCH_NCCL|UCX|FI|GDR|SHARP)_[A-Z0-9_]+",
        "a variable of the network's libraries: its name starts with NCCL_, GLOO_, TORCH_NCCL_, UCX_, FI_, GDR_ or "
        "SHARP_; others go into pods.extraEnv",
    ),
    "interfaces": Kind(
        rf"(\^=?|=)?{_INTERFACE}(,{_INTERFACE})*",
        "names of network interfaces as NCCL reads them: eth0, `=eth0,eth1` or `^docker0,lo`",
        1024,
    ),
    "adapters": Kind(
        rf"(\^=?|=)?{_ADAPTER}(,{_ADAPTER})*",
        "names of InfiniBand or RoCE adapters as NCCL reads them: mlx5_0,mlx5_1:1 or `^mlx5_2`",
        4096,
    ),
}
