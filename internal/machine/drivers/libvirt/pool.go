package libvirt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// pool keeps a machine's files as volumes of a storage pool.
type pool struct {
	images
	c    *conn
	name string
	id   string // the machine's
}

// The names of volumes begin with the machine's id, and end as the files do.
const volumePrefix = "mica-"

func (p *pool) volume(name string) string { return volumePrefix + p.id + "-" + name }

// open finds the pool, which has to be one of files.
func (p *pool) open(ctx context.Context) (rpc.StoragePool, error) {
	var found rpc.StoragePool
	var doc string
	err := p.c.ask(ctx, "looking for storage pool "+p.name, func() (err error) {
		if found, err = p.c.StoragePoolLookupByName(p.name); err != nil {
			return err
		}
		doc, err = p.c.StoragePoolGetXMLDesc(found, 0)
		return err
	})
	if is(err, rpc.ErrNoStoragePool) {
		return found, fail.New(fail.HostLacks, "%w", err).
			Hint("make it there: 'virsh -c %s pool-define-as %s dir --target /var/lib/libvirt/images', then pool-build, pool-start and pool-autostart %s", p.c.uri, p.name, p.name).
			Hint("or name another pool with --option pool=NAME; 'virsh -c %s pool-list' shows them", p.c.uri)
	}
	if err != nil {
		return found, err
	}
	var x libvirtxml.StoragePool
	if err := x.Unmarshal(doc); err != nil {
		return found, fmt.Errorf("reading the XML of storage pool %s: %w", p.name, err)
	}
	switch x.Type {
	case "dir", "fs", "netfs":
		return found, nil
	}
	return found, fail.New(fail.Usage, "storage pool %q is of type %s, which holds no files", p.name, x.Type).
		Hint("name a pool of type dir, fs or netfs with --option pool=NAME")
}

// path is the path of a volume on the daemon's computer, "" where there is none.
func (p *pool) path(ctx context.Context, in rpc.StoragePool, name string) (rpc.StorageVol, string, error) {
	var vol rpc.StorageVol
	var path string
	err := p.c.ask(ctx, "looking for volume "+p.volume(name), func() (err error) {
		if vol, err = p.c.StorageVolLookupByName(in, p.volume(name)); err != nil {
			return err
		}
		path, err = p.c.StorageVolGetPath(vol)
		return err
	})
	if is(err, rpc.ErrNoStorageVol) {
		return vol, "", nil
	}
	return vol, path, err
}

const imageName = "image.iso"

// need is path where there has to be a volume.
func (p *pool) need(ctx context.Context, in rpc.StoragePool, name string) (rpc.StorageVol, string, error) {
	vol, path, err := p.path(ctx, in, name)
	if err == nil && path == "" {
		err = fail.New(fail.NotFound, "volume %q of storage pool %q is gone", p.volume(name), p.name)
	}
	return vol, path, err
}

// create makes a volume, empty or a copy of another; one that is there is
// somebody else's.
func (p *pool) create(ctx context.Context, in rpc.StoragePool, name, format string, size uint64, from *rpc.StorageVol) (rpc.StorageVol, string, error) {
	var vol rpc.StorageVol
	var path string
	x := libvirtxml.StorageVolume{
		Name:       p.volume(name),
		Allocation: &libvirtxml.StorageVolumeSize{Unit: "bytes", Value: 0},
		Capacity:   &libvirtxml.StorageVolumeSize{Unit: "bytes", Value: size},
		Target:     &libvirtxml.StorageVolumeTarget{Format: &libvirtxml.StorageVolumeTargetFormat{Type: format}},
	}
	doc, err := x.Marshal()
	if err != nil {
		return vol, "", err
	}
	err = p.c.call(ctx, longPatience, "making volume "+x.Name, func() (err error) {
		if from == nil {
			vol, err = p.c.StorageVolCreateXML(in, doc, 0)
		} else {
			vol, err = p.c.StorageVolCreateXMLFrom(in, doc, *from, 0)
		}
		if err != nil {
			return err
		}
		path, err = p.c.StorageVolGetPath(vol)
		return err
	})
	if is(err, rpc.ErrStorageVolExist) {
		return vol, "", fail.New(fail.Conflict, "%w", err).Hint("'virsh -c %s vol-delete --pool %s %s' removes it, if nobody needs it", p.c.uri, p.name, x.Name)
	}
	return vol, path, p.full(err)
}

// maker makes the volumes of one machine.
type maker struct {
	*pool
	in   rpc.StoragePool
	made taker
}

// add makes a volume, empty or a copy.
func (m maker) add(ctx context.Context, name, format string, size int64, from *rpc.StorageVol) (rpc.StorageVol, string, error) {
	vol, path, err := m.create(ctx, m.in, name, format, uint64(size), from)
	if err == nil {
		m.made("volume "+vol.Name, func(ctx context.Context) error { return m.delete(ctx, vol) })
	}
	return vol, path, err
}

// addFile makes a volume of a file: of that format, with a disk of size bytes;
// raw ones are as large as the file is.
func (m maker) addFile(ctx context.Context, name, format string, size int64, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if size == 0 {
		size = info.Size()
	}
	vol, path, err := m.add(ctx, name, format, size, nil)
	if err != nil {
		return "", err
	}
	return path, m.upload(ctx, vol, f, info.Size())
}

func (p *pool) make(ctx context.Context, s machine.Spec, from *origin, made taker) (media, error) {
	var m media
	in, err := p.open(ctx)
	if err != nil {
		return m, err
	}
	volumes := maker{p, in, made}
	if s.Image.Format == "" {
		if m.image, err = volumes.addFile(ctx, imageName, "raw", 0, s.ImagePath()); err != nil {
			return m, fmt.Errorf("boot image: %w", err)
		}
	}
	drive, err := configDrive(ctx, s)
	if err != nil {
		return m, err
	}
	vol, path, err := volumes.add(ctx, configName, "raw", int64(len(drive)), nil)
	if err != nil {
		return m, err
	}
	m.config = path
	if err := p.upload(ctx, vol, bytes.NewReader(drive), int64(len(drive))); err != nil {
		return m, err
	}
	paths, err := volumes.disks(ctx, s, from)
	if err != nil {
		return m, err
	}
	m.disk = paths[diskName]
	for n, disk := range s.Disks {
		m.more = append(m.more, cmp.Or(disk.Path, paths[moreName(n)]))
	}
	for _, end := range rotated {
		if _, _, err := volumes.add(ctx, logName+end, "raw", 0, nil); err != nil {
			return m, err
		}
	}
	_, m.log, err = volumes.add(ctx, logName, "raw", 0, nil)
	m.nvram = p.nvram(s, m)
	return m, err
}

// nvram is where libvirt is to make it: beside the disk.
func (p *pool) nvram(s machine.Spec, m media) string {
	if s.Firmware != machine.UEFI {
		return ""
	}
	return path.Join(path.Dir(m.disk), p.volume(nvramName))
}

// disks makes the machine's disks, and returns their paths by name.
func (m maker) disks(ctx context.Context, s machine.Spec, from *origin) (map[string]string, error) {
	paths := map[string]string{}
	var err error
	if from != nil {
		pairs, err := copies(from.spec, s)
		if err != nil {
			return nil, err
		}
		other := &pool{c: m.c, name: m.name, id: from.ID}
		for _, pair := range pairs {
			origin, _, err := other.need(ctx, m.in, pair[0])
			if err != nil {
				return nil, err
			}
			var size uint64
			err = m.c.ask(ctx, "looking at volume "+origin.Name, func() (err error) {
				_, size, _, err = m.c.StorageVolGetInfo(origin)
				return err
			})
			if err != nil {
				return nil, err
			}
			if _, paths[pair[1]], err = m.add(ctx, pair[1], formatQcow2, int64(size), &origin); err != nil {
				return nil, err
			}
		}
		return paths, m.cloneNVRAM(ctx, s, other)
	}
	for _, n := range own(s) {
		if _, paths[moreName(n)], err = m.add(ctx, moreName(n), formatQcow2, s.Disks[n].MiB*mebi, nil); err != nil {
			return nil, err
		}
	}
	if s.Image.Format == "" {
		_, paths[diskName], err = m.add(ctx, diskName, formatQcow2, s.DiskMiB*mebi, nil)
		return paths, err
	}
	staged := s.Path(stagedName)
	m.made("staged disk", func(context.Context) error { return gone(os.Remove(staged)) })
	if err := m.convert(ctx, s, staged); err != nil {
		return nil, err
	}
	if paths[diskName], err = m.addFile(ctx, diskName, formatQcow2, s.DiskMiB*mebi, staged); err != nil {
		return nil, err
	}
	return paths, os.Remove(staged)
}

// cloneNVRAM copies the variables of UEFI, if there are any yet. libvirt has made
// the file past the pool.
func (m maker) cloneNVRAM(ctx context.Context, s machine.Spec, other *pool) error {
	if s.Firmware != machine.UEFI {
		return nil
	}
	if err := m.refresh(ctx, m.in); err != nil {
		return err
	}
	origin, size, err := other.size(ctx, m.in, nvramName)
	if err != nil || size < 0 {
		return err
	}
	_, _, err = m.add(ctx, nvramName, "raw", size, &origin)
	return err
}

// refresh makes volumes known that others have made. It fails where somebody's
// volume is being made.
func (p *pool) refresh(ctx context.Context, in rpc.StoragePool) error {
	return p.c.call(ctx, longPatience, "looking through storage pool "+p.name, func() error { return p.c.StoragePoolRefresh(in, 0) })
}

func (p *pool) media(ctx context.Context, s machine.Spec) (media, error) {
	m := media{more: make([]string, len(s.Disks))}
	in, err := p.open(ctx)
	if err != nil {
		return m, err
	}
	paths := map[string]*string{configName: &m.config, diskName: &m.disk, logName: &m.log}
	if s.Image.Format == "" {
		paths[imageName] = &m.image
	}
	for n, disk := range s.Disks {
		if m.more[n] = disk.Path; disk.Path == "" {
			paths[moreName(n)] = &m.more[n]
		}
	}
	for name, path := range paths {
		if _, *path, err = p.need(ctx, in, name); err != nil {
			return m, err
		}
	}
	m.nvram = p.nvram(s, m)
	return m, nil
}

func (p *pool) delete(ctx context.Context, vol rpc.StorageVol) error {
	err := p.c.call(ctx, longPatience, "removing volume "+vol.Name, func() error { return p.c.StorageVolDelete(vol, 0) })
	if is(err, rpc.ErrNoStorageVol) {
		return nil
	}
	return err
}

func (p *pool) remove(ctx context.Context, s machine.Spec) error {
	in, err := p.open(ctx)
	if is(err, rpc.ErrNoStoragePool) {
		return nil // and its volumes with it
	}
	if err != nil {
		return err
	}
	// What libvirt and virtlogd have made past the pool is not known before a
	// refresh. Where that fails it stays unknown, and so do the names after
	// another look.
	rerr := p.refresh(ctx, in)
	if rerr != nil && ctx.Err() != nil {
		return rerr
	}
	names := []string{imageName, configName, diskName, nvramName, logName}
	for _, end := range rotated {
		names = append(names, logName+end)
	}
	for _, n := range own(s) {
		names = append(names, moreName(n))
	}
	errs := []error{gone(os.Remove(s.Path(stagedName)))}
	for _, name := range names {
		vol, path, err := p.path(ctx, in, name)
		if err == nil && path != "" {
			err = p.delete(ctx, vol)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// freshLog leaves alone what is empty.
func (p *pool) freshLog(ctx context.Context, _ machine.Spec) error {
	in, err := p.open(ctx)
	if err != nil {
		return err
	}
	for _, end := range append([]string{""}, rotated...) {
		vol, size, err := p.size(ctx, in, logName+end)
		if err != nil {
			return err
		}
		if size == 0 {
			continue
		}
		if size > 0 {
			if err := p.delete(ctx, vol); err != nil {
				return err
			}
		}
		if _, _, err = p.create(ctx, in, logName+end, "raw", 0, nil); err != nil {
			return err
		}
	}
	return nil
}

// size is how large the volume is, -1 where there is none.
func (p *pool) size(ctx context.Context, in rpc.StoragePool, name string) (rpc.StorageVol, int64, error) {
	var vol rpc.StorageVol
	var size uint64
	err := p.c.ask(ctx, "looking at volume "+p.volume(name), func() (err error) {
		if vol, err = p.c.StorageVolLookupByName(in, p.volume(name)); err != nil {
			return err
		}
		_, size, _, err = p.c.StorageVolGetInfo(vol)
		return err
	})
	if is(err, rpc.ErrNoStorageVol) {
		return vol, -1, nil
	}
	return vol, int64(size), err
}

func (p *pool) grow(ctx context.Context, _ machine.Spec, bytes int64) error {
	in, err := p.open(ctx)
	if err != nil {
		return err
	}
	vol, _, err := p.need(ctx, in, diskName)
	if err != nil {
		return err
	}
	return p.c.call(ctx, longPatience, "growing volume "+vol.Name, func() error {
		_, size, _, err := p.c.StorageVolGetInfo(vol)
		if err != nil || size == uint64(bytes) {
			return err
		}
		return p.c.StorageVolResize(vol, uint64(bytes), 0)
	})
}

// logParts: volumes for the older parts are there from the beginning, empty;
// virtlogd's files would else be unknown to libvirt.
func (p *pool) logParts(ctx context.Context, _ machine.Spec) ([]part, error) {
	in, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	var parts []part // the newest first
	for _, end := range []string{"", ".0", ".1", ".2"} {
		vol, size, err := p.size(ctx, in, logName+end)
		if err != nil {
			return nil, err
		}
		if end != "" && size <= 0 { // nor are there older ones
			break
		}
		one := part{size: max(size, 0), read: func(ctx context.Context, offset, length int64) ([]byte, error) {
			var b bytes.Buffer
			err := p.download(ctx, vol, &b, offset, length)
			return b.Bytes(), err
		}}
		if end != "" {
			if one.mark, err = p.modified(ctx, vol); err != nil {
				return nil, err
			}
		}
		parts = append(parts, one)
	}
	slices.Reverse(parts)
	return parts, nil
}

// modified is when a volume was last written to.
func (p *pool) modified(ctx context.Context, vol rpc.StorageVol) (string, error) {
	var doc string
	err := p.c.ask(ctx, "looking at volume "+vol.Name, func() (err error) {
		doc, err = p.c.StorageVolGetXMLDesc(vol, 0)
		return err
	})
	if err != nil {
		return "", err
	}
	var x libvirtxml.StorageVolume
	if err := x.Unmarshal(doc); err != nil {
		return "", fmt.Errorf("reading the XML of volume %s: %w", vol.Name, err)
	}
	if x.Target == nil || x.Target.Timestamps == nil {
		return "", nil
	}
	return x.Target.Timestamps.Mtime, nil
}

func (p *pool) config(ctx context.Context, _ machine.Spec) ([]byte, error) {
	in, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	vol, size, err := p.size(ctx, in, configName)
	if err != nil || size <= 0 {
		return nil, err
	}
	var b bytes.Buffer
	err = p.download(ctx, vol, &b, 0, size)
	return b.Bytes(), err
}

// setConfig writes over what is there. What is left of a longer one does not
// matter: the medium says how long it is.
func (p *pool) setConfig(ctx context.Context, _ machine.Spec, data []byte) error {
	in, err := p.open(ctx)
	if err != nil {
		return err
	}
	vol, size, err := p.size(ctx, in, configName)
	if err == nil && size < 0 {
		_, _, err = p.need(ctx, in, configName)
	}
	if err != nil {
		return err
	}
	if size < int64(len(data)) {
		err := p.c.ask(ctx, "growing volume "+vol.Name, func() error { return p.c.StorageVolResize(vol, uint64(len(data)), 0) })
		if err != nil {
			return err
		}
	}
	return p.upload(ctx, vol, bytes.NewReader(data), int64(len(data)))
}

func (p *pool) used(ctx context.Context, _ machine.Spec) (uint64, error) {
	in, err := p.open(ctx)
	if err != nil {
		return 0, err
	}
	vol, _, err := p.need(ctx, in, diskName)
	if err != nil {
		return 0, err
	}
	var allocated uint64
	err = p.c.ask(ctx, "looking at the disk", func() (err error) {
		_, _, allocated, err = p.c.StorageVolGetInfo(vol)
		return err
	})
	return allocated, err
}
