package source

import "context"

// source is one place a context may come from.
type source struct {
	name    string
	network bool

	// platforms that have it; empty is any. A machine whose platform is not known
	// asks every network source.
	platforms []string

	// find returns errNothing if there is no context in this place.
	find func(ctx context.Context, s *search) (Found, error)
}

// sources is the list, in the order of preference. The names from ConfigDrive to
// CloudStack are the original's and end up in context/source, where scripts of
// the operating system compare them.
func sources() []source {
	return []source{
		{name: "KernelCommandLine", find: fromCommandLine},
		{name: "QEMU", find: fromFirmwareConfig},
		{name: "SMBIOS", find: fromSMBIOS},
		{name: "ConfigDrive", find: fromConfigDrive},
		{name: "NoCloud", find: fromNoCloud},
		{name: "OpenNebula", find: fromOpenNebula},
		{name: "vSphere", find: fromVSphere},
		{name: "Azure", find: fromAzureMedium},
		{name: "Floppy", find: fromFloppy},
		{name: "VMware", platforms: []string{platformVMware}, find: fromGuestInfo},

		{name: "KernelCommandLine", network: true, find: fromCommandLineURL},
		{name: "NoCloud", network: true, find: fromNoCloudURL},
		{name: "GCE", network: true, platforms: []string{platformGCE}, find: fromGCE},
		{name: "EC2", network: true, platforms: []string{platformEC2}, find: fromEC2},
		{name: "OpenStack", network: true, platforms: []string{platformOpenStack}, find: fromOpenStack},
		{name: "CloudStack", network: true, platforms: []string{platformCloudStack}, find: fromCloudStack},
		{name: "Azure", network: true, platforms: []string{platformAzure}, find: fromAzureService},
	}
}
