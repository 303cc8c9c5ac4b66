package ova

import (
	"encoding/xml"
	"math"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
)

// envelope is what is read of an OVF description. Names are matched without
// their namespaces, which differ between the versions.
type envelope struct {
	XMLName xml.Name `xml:"Envelope"`
	Files   []struct {
		ID          string `xml:"id,attr"`
		Href        string `xml:"href,attr"`
		Compression string `xml:"compression,attr"`
		ChunkSize   string `xml:"chunkSize,attr"`
	} `xml:"References>File"`
	Disks []struct {
		ID       string `xml:"diskId,attr"`
		File     string `xml:"fileRef,attr"`
		Parent   string `xml:"parentRef,attr"`
		Capacity string `xml:"capacity,attr"`
		Units    string `xml:"capacityAllocationUnits,attr"`
		Format   string `xml:"format,attr"`
	} `xml:"DiskSection>Disk"`
	Systems []struct {
		ID    string `xml:"id,attr"`
		Name  string `xml:"Name"`
		Items []item `xml:"VirtualHardwareSection>Item"`
		Disks []item `xml:"VirtualHardwareSection>StorageItem"`
	} `xml:"VirtualSystem"`
	Collections []struct{} `xml:"VirtualSystemCollection"`
}

type item struct {
	Type     string   `xml:"ResourceType"`
	Resource []string `xml:"HostResource"`
	Quantity string   `xml:"VirtualQuantity"`
	Units    string   `xml:"AllocationUnits"`
}

// The resource types of CIM that count here.
const (
	typeCPU    = "3"
	typeMemory = "4"
	typeDisk   = "17"
)

func (a *Appliance) describe(text []byte) error {
	var e envelope
	if err := xml.Unmarshal(text, &e); err != nil {
		return bad(a.path, "reading the description: %v", err)
	}
	if len(e.Collections) > 0 || len(e.Systems) != 1 {
		return unsupported(a.path, "it describes %d machines in %d collections; one machine can be imported", len(e.Systems), len(e.Collections))
	}
	system := e.Systems[0]
	if a.Name = system.Name; a.Name == "" {
		a.Name = system.ID
	}
	for _, i := range append(system.Items, system.Disks...) {
		switch strings.TrimSpace(i.Type) {
		case typeCPU:
			a.CPUs = int(min(quantity(i.Quantity, ""), math.MaxInt16))
		case typeMemory:
			a.MemoryMiB = int(min(quantity(i.Quantity, i.Units)>>20, math.MaxInt32))
		case typeDisk:
			for _, resource := range i.Resource {
				if err := a.addDisk(&e, strings.TrimSpace(resource)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// addDisk follows a reference such as ovf:/disk/vmdisk1. A disk without a file is
// an empty one, and left out.
func (a *Appliance) addDisk(e *envelope, resource string) error {
	rest := strings.TrimPrefix(resource, "ovf:")
	kind, id, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	var d Disk
	file := id
	switch kind {
	case "disk":
		found := false
		for _, disk := range e.Disks {
			if disk.ID != id {
				continue
			}
			if disk.Parent != "" {
				return unsupported(a.path, "disk %q is a difference to another one", id)
			}
			found, file = true, disk.File
			d.Capacity, d.Format = quantity(disk.Capacity, disk.Units), formatName(disk.Format)
		}
		if !found {
			return bad(a.path, "the description refers to disk %q, which it lacks", id)
		}
		if file == "" {
			return nil
		}
	case "file":
	default:
		return bad(a.path, "the description refers to %.80q", resource)
	}
	for _, f := range e.Files {
		if f.ID != file {
			continue
		}
		size, ok := a.sizes[f.Href]
		switch {
		case !ok:
			return bad(a.path, "it lacks the file %.80q", f.Href)
		case f.ChunkSize != "" && f.ChunkSize != "0":
			return unsupported(a.path, "%q is split into chunks", f.Href)
		case f.Compression != "" && f.Compression != "identity" && f.Compression != "gzip":
			return unsupported(a.path, "%q is compressed by %q", f.Href, f.Compression)
		}
		d.File, d.Size, d.gzip = f.Href, size, f.Compression == "gzip"
		a.Disks = append(a.Disks, d)
		return nil
	}
	return bad(a.path, "the description refers to file %q, which it lacks", file)
}

// formatName reads the URI of a disk's format.
func formatName(uri string) string {
	uri = strings.ToLower(uri)
	for _, f := range []struct{ part, name string }{
		{"vmdk", "vmdk"}, {"vhd", "vpc"}, {"virtualpc", "vpc"}, {"qcow2", "qcow2"}, {"qcow", "qcow2"}, {"vdi", "vdi"}, {"raw", "raw"},
	} {
		if strings.Contains(uri, f.part) {
			return f.name
		}
	}
	return ""
}

var power = regexp.MustCompile(`^byte\*2\^(\d{1,2})$`)

// quantity reads a number in units of CIM, such as byte * 2^20, or of OVF 0.9,
// such as MegaBytes. What cannot be read is 0.
func quantity(number, units string) int64 {
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 63)
	if err != nil {
		return 0
	}
	shift := 0
	units = strings.ToLower(strings.Join(strings.Fields(units), ""))
	if m := power.FindStringSubmatch(units); m != nil {
		shift, _ = strconv.Atoi(m[1]) // two digits
	} else {
		shift = map[string]int{"kilobytes": 10, "megabytes": 20, "gigabytes": 30, "terabytes": 40}[units]
	}
	if bits.Len64(n)+shift > 62 {
		return 0
	}
	return int64(n << shift)
}
