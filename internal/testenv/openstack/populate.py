"""Fills an empty OpenStack with what tests need. Can be run again: what is there stays."""
import json
import os
import sys
import time
import urllib.error
import urllib.request

HOST, PASSWORD = "127.0.0.1", os.environ["SCALR_PASSWORD"]
KEYSTONE = f"http://{HOST}:25050/v3"
ENDPOINTS = {
    "image": f"http://{HOST}:25292",
    "placement": f"http://{HOST}:25778",
    "compute": f"http://{HOST}:25774/v2.1",
    "network": f"http://{HOST}:25696",
    "volumev3": f"http://{HOST}:25776/v3/%(project_id)s",
    "block-storage": f"http://{HOST}:25776/v3/%(project_id)s",
    "dns": f"http://{HOST}:25901/",
    "load-balancer": f"http://{HOST}:25876",
}


def call(method, url, body=None, token=None, raw=None, patient=(), **headers):
    """Makes a request, again while the service fails or answers one of the patient statuses: it has just been started."""
    data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
    headers.setdefault("Content_Type", "application/json")
    if token:
        headers["X_Auth_Token"] = token
    request = urllib.request.Request(url, data, {k.replace("_", "-"): v for k, v in headers.items()}, method=method)
    for patience in range(60):
        try:
            with urllib.request.urlopen(request) as reply:
                text = reply.read()
                return (json.loads(text) if text else None), reply.headers
        except urllib.error.HTTPError as e:
            if e.code < 500 and e.code not in patient or patience == 59:
                raise SystemExit(f"{method} {url}: {e.code} {e.read().decode()[:500]}")
        except urllib.error.URLError as e:
            if patience == 59:
                raise SystemExit(f"{method} {url}: {e}")
        time.sleep(1)


def sign_in(project):
    body = {"auth": {
        "identity": {"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}}},
        "scope": {"project": {"name": project, "domain": {"id": "default"}}}}}
    return call("POST", KEYSTONE + "/auth/tokens", body)[1]["X-Subject-Token"]


TOKEN = sign_in("admin")
LISTS = {}


def ensure(at, kind, plural, find, **attributes):
    """Makes a thing unless one that has the same to find it by is listed, and gives it."""
    if at not in LISTS:
        LISTS[at] = call("GET", at, token=TOKEN)[0][plural]
    for x in LISTS[at]:
        if all(x.get(k) == attributes[k] for k in find):
            return x
    LISTS[at].append(call("POST", at, {kind: attributes}, TOKEN)[0][kind])
    return LISTS[at][-1]


def catalog():
    for kind, url in ENDPOINTS.items():
        service = ensure(KEYSTONE + "/services", "service", "services", ["type"], name=kind, type=kind)
        for interface in ("public", "internal", "admin"):
            ensure(KEYSTONE + "/endpoints", "endpoint", "endpoints", ["service_id", "interface"],
                   service_id=service["id"], interface=interface, region_id="RegionOne", url=url)
    ensure(KEYSTONE + "/roles", "role", "roles", ["name"], name="service")


def roles(user, project, names):
    for name in names:
        role = ensure(KEYSTONE + "/roles", "role", "roles", ["name"], name=name)
        call("PUT", f"{KEYSTONE}/projects/{project}/users/{user}/roles/{role['id']}", token=TOKEN)


def projects():
    """The project of the tests, and one with a quota of nothing; each with a user of the same name."""
    admin = ensure(KEYSTONE + "/users", "user", "users", ["name"], name="admin")
    ids = {}
    for name in ("scalr", "empty"):
        project = ensure(KEYSTONE + "/projects", "project", "projects", ["name"], name=name, domain_id="default")["id"]
        user = ensure(KEYSTONE + "/users", "user", "users", ["name"], name=name, domain_id="default", password=PASSWORD)["id"]
        roles(user, project, ["member", "load-balancer_member"])
        roles(admin["id"], project, ["admin"])
        ids[name] = project
    empty, own = ids["empty"], ids["scalr"]
    admin_project = ensure(KEYSTONE + "/projects", "project", "projects", ["name"], name="admin")["id"]
    volumes = ENDPOINTS["volumev3"] % {"project_id": admin_project}
    call("PUT", f"{ENDPOINTS['compute']}/os-quota-sets/{empty}", {"quota_set": {"instances": 0}}, TOKEN)
    call("PUT", f"{ENDPOINTS['compute']}/os-quota-sets/{own}", {"quota_set": {"ram": -1}}, TOKEN)  # for the size that is huge
    call("PUT", f"{volumes}/os-quota-sets/{empty}", {"quota_set": {"volumes": 0}}, TOKEN)
    call("PUT", f"{ENDPOINTS['network']}/v2.0/quotas/{empty}", {"quota": {"floatingip": 0}}, TOKEN)
    call("PUT", f"{ENDPOINTS['load-balancer']}/v2.0/lbaas/quotas/{empty}", {"quota": {"loadbalancer": 0}}, TOKEN)
    return own


def networks(project):
    url = ENDPOINTS["network"] + "/v2.0/"

    def network(name, cidr, **more):
        n = ensure(url + "networks", "network", "networks", ["name"], name=name, **more)
        s = ensure(url + "subnets", "subnet", "subnets", ["name"], name=name, network_id=n["id"], ip_version=4, cidr=cidr,
                   project_id=n["project_id"], enable_dhcp=False)
        return n["id"], s["id"]

    public, _ = network("public", "198.18.0.0/16", **{"router:external": True, "provider:network_type": "flat",
                                                      "provider:physical_network": "outside"})
    _, subnet = network("private", "10.20.0.0/16", project_id=project, shared=True)
    router = ensure(url + "routers", "router", "routers", ["name"], name="router", project_id=project,
                    external_gateway_info={"network_id": public})["id"]
    ports = call("GET", f"{url}ports?device_id={router}&fixed_ips=subnet_id%3D{subnet}", token=TOKEN)[0]["ports"]
    if not ports:
        call("PUT", f"{url}routers/{router}/add_router_interface", {"subnet_id": subnet}, TOKEN)


def compute():
    url = ENDPOINTS["compute"]
    for name, ram, cpus in (("small", 128, 1), ("large", 256, 2), ("huge", 10 ** 7, 1)):
        ensure(url + "/flavors?is_public=None", "flavor", "flavors", ["name"], name=name, ram=ram, vcpus=cpus, disk=1)
    for zone in ("alpha", "beta"):
        a = ensure(url + "/os-aggregates", "aggregate", "aggregates", ["name"], name=zone, availability_zone=zone)
        if zone not in (a.get("hosts") or []):
            call("POST", f"{url}/os-aggregates/{a['id']}/action", {"add_host": {"host": zone}}, TOKEN,
                 patient=(404,))


def images():
    url = ENDPOINTS["image"] + "/v2/images"
    found = [x for x in call("GET", url, token=TOKEN)[0]["images"] if x["name"] == "debian" and x["visibility"] == "public"]
    if not found:
        found = [call("POST", url, {"name": "debian", "disk_format": "raw", "container_format": "bare", "visibility": "public"}, TOKEN)[0]]
    if found[0]["status"] != "active":
        call("PUT", f"{url}/{found[0]['id']}/file", raw=b"a disk", token=TOKEN, Content_Type="application/octet-stream")


def volumes():
    project = ensure(KEYSTONE + "/projects", "project", "projects", ["name"], name="admin")["id"]
    url = ENDPOINTS["volumev3"] % {"project_id": project}
    ensure(url + "/types", "volume_type", "volume_types", ["name"], name="fake")


catalog()
if sys.argv[1] == "all":
    own = projects()
    networks(own)
    compute()
    images()
    volumes()
