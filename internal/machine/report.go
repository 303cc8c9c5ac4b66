package machine

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Bundle is what goes into a report besides the machine itself.
type Bundle struct {
	Version     string // of this program
	WithContext bool   // the context as it is, with its secrets, and nothing masked
}

// reportFile is one file of a report.
type reportFile struct {
	name string
	data []byte
}

// WriteReport packs what helps to understand a machine from afar: its record,
// diagnosis, stages and console, what the driver says, and what the doctor
// finds without booting anything. It is a .tar.gz. The context stays out, and
// words of it that may be secret are masked everywhere, unless b says otherwise.
func (f *Fleet) WriteReport(ctx context.Context, w io.Writer, name string, b Bundle, getenv func(string) string) error {
	m, err := f.Get(ctx, name)
	if err != nil {
		return err
	}
	files, err := f.collect(ctx, m, b, getenv)
	if err != nil {
		return err
	}
	zipped := gzip.NewWriter(w)
	packed := tar.NewWriter(zipped)
	for _, file := range files {
		head := &tar.Header{Name: "mica-report-" + name + "/" + file.name, Mode: 0o600, Size: int64(len(file.data)), ModTime: f.now().Truncate(time.Second)}
		if err := packed.WriteHeader(head); err != nil {
			return fmt.Errorf("packing %s: %w", file.name, err)
		}
		if _, err := packed.Write(file.data); err != nil {
			return fmt.Errorf("packing %s: %w", file.name, err)
		}
	}
	return errors.Join(packed.Close(), zipped.Close())
}

// collect gathers as much as there is: a report is made when things are broken.
func (f *Fleet) collect(ctx context.Context, m Machine, b Bundle, getenv func(string) string) ([]reportFile, error) {
	dir := f.Home.machine(m.Name)
	given, err := os.ReadFile(Spec{Dir: dir}.Path(contextFile))
	if err != nil && !notThere(err) {
		return nil, fmt.Errorf("reading the context, to keep it out: %w", err)
	}
	clean := masker(given)
	if b.WithContext {
		clean = masker(nil)
	}
	var files []reportFile
	add := func(name string, data []byte) {
		files = append(files, reportFile{name, []byte(clean.Replace(string(data)))})
	}
	addJSON := func(name string, v any) {
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			data = []byte(err.Error())
		}
		add(name, data)
	}
	about := map[string]string{"version": b.Version, "time": f.now().UTC().Format(time.RFC3339), "state": string(m.State)}
	if m.Err != nil {
		about["problem"] = m.Err.Error()
	}
	addJSON("about.json", about)
	if record, err := os.ReadFile(Spec{Dir: dir}.Path(recordFile)); err == nil {
		add(recordFile, record)
	}
	if d, err := f.Why(ctx, m.Name); err == nil {
		addJSON("why.json", d)
	}
	if m.Record != nil {
		if all, err := f.Stages(ctx, m); err == nil {
			addJSON("stages.json", all)
		}
		addJSON("platform.json", f.Describe(ctx, m))
		var log []byte
		if err := f.readLog(ctx, m, 0, maxDiagnosed, func(data []byte) { log = append(log, data...) }); err == nil {
			add("console.log", log)
		}
	}
	var findings []Finding
	if err := f.Doctor(ctx, false, getenv, func(one Finding) { findings = append(findings, one) }); err != nil {
		return nil, err
	}
	addJSON("doctor.json", findings)
	if b.WithContext {
		add(contextFile, given)
	}
	return files, nil
}
