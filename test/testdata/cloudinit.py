"""Has the data sources of the installed cloud-init read contexts.

Standard input is a JSON list of jobs {source, where, dmi}; standard output a list
of what each found: {user_data (base64), instance_id, hostname, keys, zone, error}.
Runs in a chroot of a system with cloud-init. Only what identifies the platform is
pretended (dmi); reading, parsing and walking is cloud-init's own.
"""

import base64
import json
import logging
import os
import sys
import tempfile
import traceback

from cloudinit import distros, dmi, helpers, util
from cloudinit.sources import (
    DataSourceAltCloud,
    DataSourceAzure,
    DataSourceCloudStack,
    DataSourceConfigDrive,
    DataSourceEc2,
    DataSourceGCE,
    DataSourceNoCloud,
    DataSourceOpenNebula,
    DataSourceOpenStack,
)

logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
util.find_devs_with = lambda *a, **k: []  # the disks of this computer are nobody's media
DataSourceOpenNebula.find_candidate_devs = lambda: []
DataSourceConfigDrive.find_candidate_devs = lambda *a, **k: []


def source(module, name, config=None, **attributes):
    """Makes a data source as cloud-init's main program does, and has it look."""
    state = tempfile.mkdtemp()
    paths = helpers.Paths({"cloud_dir": state, "run_dir": state, "templates_dir": "/etc/cloud/templates"})
    cfg = {"datasource_list": [name, "None"], "datasource": {name: {"timeout": 5, "max_wait": 20, **(config or {})}}}
    cfg["system_info"] = {"default_user": {"name": "debian"}}
    distro = distros.fetch("debian")("debian", cfg["system_info"], paths)
    ds = getattr(module, attributes.pop("cls", "DataSource" + name))(cfg, distro, paths)
    for key, value in attributes.items():
        setattr(ds, key, value)
    if not ds.get_data():
        raise RuntimeError("the data source says it is not there")
    return ds


def facts(ds):
    return {
        "user_data": ds.get_userdata_raw(),
        "instance_id": ds.get_instance_id(),
        "hostname": ds.get_hostname(fqdn=True, metadata_only=True).hostname,
        "keys": ds.get_public_ssh_keys(),
        "zone": ds.availability_zone,
    }


def config_drive(where):
    return facts(source(DataSourceConfigDrive, "ConfigDrive", seed_dir=where))


def nocloud(where):
    return facts(source(DataSourceNoCloud, "NoCloud", seed_dirs=[where]))


def nocloud_net(where):
    config = {"seedfrom": where} if where else None  # else the firmware says where
    return facts(source(DataSourceNoCloud, "NoCloud", config, cls="DataSourceNoCloudNet", seed_dirs=[]))


def opennebula(where):
    return facts(source(DataSourceOpenNebula, "OpenNebula", seed_dir=where))


def altcloud(where):
    found = DataSourceAltCloud.read_user_data_callback(where)
    return {"user_data": found}


def azure(where):
    md, ud, cfg, _files = DataSourceAzure.load_azure_ds_dir(where)
    keys = [k["value"] for k in cfg.get("_pubkeys", [])]
    return {"user_data": ud, "hostname": md["local-hostname"], "keys": keys, "password_login": cfg["ssh_pwauth"]}


def azure_imds(where):
    md = DataSourceAzure.get_metadata_from_imds(0, api_version=DataSourceAzure.IMDS_VER_WANT)
    keys = [k["keyData"] for k in md["compute"]["publicKeys"]]
    if not all(DataSourceAzure._key_is_openssh_formatted(k) for k in keys):
        raise RuntimeError("a key is not in the form of OpenSSH")
    DataSourceAzure.generate_network_config_from_instance_network_metadata(md["network"])
    return {
        "user_data": base64.b64decode(DataSourceAzure._userdata_from_imds(md)),
        "instance_id": md["compute"]["vmId"],
        "hostname": DataSourceAzure._hostname_from_imds(md),
        "keys": keys,
    }


def ec2(where):
    return facts(source(DataSourceEc2, "Ec2", {"metadata_urls": [where]}))


def openstack(where):
    return facts(source(DataSourceOpenStack, "OpenStack", {"metadata_urls": [where]}))


def gce(where):
    return facts(source(DataSourceGCE, "GCE"))


def cloudstack(where):
    ds = source(DataSourceCloudStack, "CloudStack")
    if ds.metadata_address != where:
        raise RuntimeError("asked " + ds.metadata_address)
    return facts(ds)


def run(job):
    pretended = job.get("dmi") or {}
    dmi.read_dmi_data = lambda key: pretended.get(key)
    try:
        found = globals()[job["source"]](job["where"])
    except Exception:
        return {"error": traceback.format_exc()}
    data = found.get("user_data") or b""
    if isinstance(data, str):
        data = data.encode()
    found["user_data"] = base64.b64encode(data).decode()
    return found


out, sys.stdout = sys.stdout, sys.stderr
json.dump([run(job) for job in json.load(sys.stdin)], out)
