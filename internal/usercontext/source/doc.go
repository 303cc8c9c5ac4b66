// Package source finds the context of the machine it runs on: user data and a
// little metadata, from media, firmware, the hypervisor, or a metadata service.
//
// There is one file a source, and one list of them in list.go whose order is
// the order of preference. The firmware's description of the machine decides
// which network sources are asked, so that no machine trusts an address that
// its platform does not own; an unknown platform races all of them within a
// small budget.
//
// The package reads; it interprets nothing. A context.sh is split into words by
// a small tokenizer, never given to a shell. Data is bounded to 1 MiB, metadata
// to 256 KiB, and no proxy, no redirect and no name server has a part in it.
//
// The order of the original sources and their paths follow cernvm-micro:
// scripts.d/06context and 07extracontext; the additions follow cloud-init:
// cloudinit/sources.
package source
