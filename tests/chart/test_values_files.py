"""What the values files for particular clusters promise in their first lines."""

from helm.engine import ROOT, ci_values, render_ci
from tests.chart.schemas import containers, pod_templates

CI = ROOT / "helm" / "openrlhf-mtp" / "ci"


def groups(name):
    """Pod templates of a RayJob by role."""
    cluster = render_ci(name).one("RayJob")["spec"]["rayClusterSpec"]
    made = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"], **made}


def ray(template):
    return template["spec"]["containers"][0]


def test_efa_pods_have_devices_and_huge_pages_and_the_head_neither():
    templates = groups("efa")
    for role in ("trainer", "rollout"):
        limits = ray(templates[role])["resources"]["limits"]
        assert (limits["vpc.amazonaws.com/efa"], limits["hugepages-2Mi"]) == ("32", "5120Mi")
        env = {one["name"]: one.get("value") for one in ray(templates[role])["env"]}
        assert env["FI_PROVIDER"] == "efa"
        assert "NCCL_IB_DISABLE" not in env
    assert set(ray(templates["head"])["resources"]["limits"]) == {"cpu", "memory"}


def test_gb200_pods_share_one_domain_and_their_file_says_what_image_they_need():
    templates = groups("gb200-dra")
    for role in ("trainer", "rollout"):
        spec = templates[role]["spec"]
        assert spec["resourceClaims"] == [
            {"name": "channel", "resourceClaimTemplateName": "training-channel"}
        ]
        assert ray(templates[role])["resources"]["claims"] == [{"name": "channel"}]
    assert "resourceClaims" not in templates["head"]["spec"]
    first = (CI / "gb200-dra-values.yaml").read_text(encoding="utf-8").splitlines()[1:3]
    assert "x86-64 only" in " ".join(first)
    assert "BRING AN ARM64 IMAGE" in " ".join(first)


def test_spot_pods_stop_within_the_notice_and_the_head_is_on_another_node():
    templates = groups("spot")
    assert all(template["spec"]["terminationGracePeriodSeconds"] < 120 for template in templates.values())
    assert templates["head"]["spec"]["nodeSelector"] != templates["trainer"]["spec"]["nodeSelector"]
    assert any("ckpt.save_steps" in one for one in ci_values("spot")["job"]["overrides"])


def test_openshift_chooses_every_uid_and_group():
    made = [template for one in render_ci("openshift").objects for template in pod_templates(one)]
    assert made
    for template in made:
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(template["spec"]["securityContext"])


def test_a_quota_finds_requests_equal_to_limits_in_every_container():
    made = [template for one in render_ci("quota").objects for template in pod_templates(one)]
    assert any("initContainers" in template["spec"] for template in made)
    for template in made:
        for container in containers(template):
            assert container["resources"]["requests"] == container["resources"]["limits"]
    for template in groups("quota").values():
        assert {"cpu", "memory", "ephemeral-storage"} <= set(ray(template)["resources"]["limits"])


def test_an_air_gapped_run_asks_no_hub_and_reaches_one_network():
    env = {one["name"]: one.get("value") for one in ray(groups("air-gap")["head"])["env"]}
    assert env["HF_HUB_OFFLINE"] == env["HF_DATASETS_OFFLINE"] == "1"
    mounts = {one["mountPath"]: one["name"] for one in ray(groups("air-gap")["trainer"])["volumeMounts"]}
    assert mounts["/etc/company-ca"] == "company-ca"
    egress = render_ci("air-gap").one("NetworkPolicy")["spec"]["egress"]
    assert {"to": [{"ipBlock": {"cidr": "10.20.0.0/24"}}]} in egress
    assert {} not in egress
