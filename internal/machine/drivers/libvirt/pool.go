package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// pool keeps a machine's files as volumes of a storage pool.
type pool struct {
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

func (p *pool) imageName(s machine.Spec) string {
	if s.Image.Format != "" {
		return "image." + s.Image.Format
	}
	return "image.iso"
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
	return vol, path, err
}

// upload fills a volume.
func (p *pool) upload(ctx context.Context, vol rpc.StorageVol, r io.Reader, size int64) error {
	limit := longPatience + time.Duration(size>>20)*time.Second // a megabyte a second is slow
	err := p.c.call(ctx, limit, "uploading "+vol.Name, func() error {
		return p.c.StorageVolUpload(vol, reader{ctx, r}, 0, uint64(size), 0)
	})
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func (p *pool) make(ctx context.Context, s machine.Spec, from *origin, made taker) (media, error) {
	var m media
	in, err := p.open(ctx)
	if err != nil {
		return m, err
	}
	add := func(name, format string, size int64) (vol rpc.StorageVol, path string, err error) {
		if vol, path, err = p.create(ctx, in, name, format, uint64(size), nil); err == nil {
			made("volume "+vol.Name, func(ctx context.Context) error { return p.delete(ctx, vol) })
		}
		return vol, path, err
	}
	// clone is add with the content of the other machine's volume.
	clone := func(name, format string, size int64) (path string, err error) {
		other := &pool{c: p.c, name: p.name, id: from.ID}
		origin, there, err := other.path(ctx, in, name)
		if err == nil && there == "" {
			err = fail.New(fail.NotFound, "volume %q of storage pool %q is gone", other.volume(name), p.name)
		}
		if err != nil {
			return "", err
		}
		vol, path, err := p.create(ctx, in, name, format, uint64(size), &origin)
		if err == nil {
			made("volume "+vol.Name, func(ctx context.Context) error { return p.delete(ctx, vol) })
		}
		return path, err
	}
	if from != nil && s.Image.Format != "" {
		// Its format is the volume's, so that libvirt copies it as what it is.
		if m.image, err = clone(p.imageName(s), "raw", 0); err != nil {
			return m, err
		}
	} else if m.image, err = p.addImage(ctx, s, add); err != nil {
		return m, err
	}
	var drive bytes.Buffer
	if err := configDrive(ctx, &drive, s); err != nil {
		return m, err
	}
	vol, path, err := add(configName, "raw", int64(drive.Len()))
	if err != nil {
		return m, err
	}
	m.config = path
	if err := p.upload(ctx, vol, &drive, int64(drive.Len())); err != nil {
		return m, err
	}
	if from != nil {
		m.disk, err = clone(diskName, "qcow2", s.DiskMiB*mebi)
	} else {
		_, m.disk, err = add(diskName, "qcow2", s.DiskMiB*mebi)
	}
	if err != nil {
		return m, err
	}
	_, m.log, err = add(logName, "raw", 0)
	return m, err
}

// addImage uploads the boot image.
func (p *pool) addImage(ctx context.Context, s machine.Spec, add func(string, string, int64) (rpc.StorageVol, string, error)) (string, error) {
	image, err := os.Open(s.ImagePath())
	if err != nil {
		return "", fmt.Errorf("opening boot image: %w", err)
	}
	defer image.Close()
	info, err := image.Stat()
	if err != nil {
		return "", fmt.Errorf("opening boot image: %w", err)
	}
	// What a volume of an image holds is not for libvirt to look into: raw.
	vol, path, err := add(p.imageName(s), "raw", info.Size())
	if err != nil {
		return "", err
	}
	return path, p.upload(ctx, vol, image, info.Size())
}

func (p *pool) media(ctx context.Context, s machine.Spec) (media, error) {
	var m media
	in, err := p.open(ctx)
	if err != nil {
		return m, err
	}
	for name, path := range map[string]*string{p.imageName(s): &m.image, configName: &m.config, diskName: &m.disk, logName: &m.log} {
		if _, *path, err = p.path(ctx, in, name); err != nil {
			return m, err
		}
		if *path == "" {
			return m, fail.New(fail.NotFound, "volume %q of storage pool %q is gone", p.volume(name), p.name)
		}
	}
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
	// Parts of the log that virtlogd has made are not known before a refresh,
	// which fails where somebody else's volume is being made: then they stay
	// unknown, and so do the names after another look.
	rerr := p.c.call(ctx, longPatience, "looking through storage pool "+p.name, func() error { return p.c.StoragePoolRefresh(in, 0) })
	if rerr != nil && ctx.Err() != nil {
		return rerr
	}
	names := []string{p.imageName(s), configName, diskName, logName}
	for _, end := range rotated {
		names = append(names, logName+end)
	}
	var errs []error
	for _, name := range names {
		vol, path, err := p.path(ctx, in, name)
		if err == nil && path != "" {
			err = p.delete(ctx, vol)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p *pool) freshLog(ctx context.Context, _ machine.Spec) error {
	in, err := p.open(ctx)
	if err != nil {
		return err
	}
	vol, path, err := p.path(ctx, in, logName)
	if err != nil {
		return err
	}
	if path != "" {
		if err := p.delete(ctx, vol); err != nil {
			return err
		}
	}
	_, _, err = p.create(ctx, in, logName, "raw", 0, nil)
	return err
}

func (p *pool) grow(ctx context.Context, _ machine.Spec, bytes int64) error {
	in, err := p.open(ctx)
	if err != nil {
		return err
	}
	vol, path, err := p.path(ctx, in, diskName)
	if err == nil && path == "" {
		err = fail.New(fail.NotFound, "volume %q of storage pool %q is gone", p.volume(diskName), p.name)
	}
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

func (p *pool) log(ctx context.Context, _ machine.Spec, offset int64) ([]byte, error) {
	in, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	vol, path, err := p.path(ctx, in, logName)
	if err != nil || path == "" {
		return nil, err
	}
	var size uint64
	err = p.c.ask(ctx, "looking at the console log", func() (err error) {
		_, size, _, err = p.c.StorageVolGetInfo(vol)
		return err
	})
	if err != nil || offset >= int64(size) {
		return nil, err
	}
	var b bytes.Buffer
	length := min(int64(size)-offset, maxLog)
	err = p.c.ask(ctx, "reading the console log", func() error {
		return p.c.StorageVolDownload(vol, &b, uint64(offset), uint64(length), 0)
	})
	return b.Bytes(), err
}

func (p *pool) used(ctx context.Context, _ machine.Spec) (uint64, error) {
	in, err := p.open(ctx)
	if err != nil {
		return 0, err
	}
	vol, path, err := p.path(ctx, in, diskName)
	if err != nil || path == "" {
		return 0, err
	}
	var allocated uint64
	err = p.c.ask(ctx, "looking at the disk", func() (err error) {
		_, _, allocated, err = p.c.StorageVolGetInfo(vol)
		return err
	})
	return allocated, err
}
