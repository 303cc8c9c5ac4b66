package source

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// TestSharesDelivered sends a list through every layout that has a place for it.
func TestSharesDelivered(t *testing.T) {
	sent := delivery.Meta{InstanceID: "i-1", Shares: []delivery.Share{
		{Name: "data", Type: Share9P},
		{Name: "a=b+c@d.e_f-g", Type: ShareVirtioFS, Tag: "share1", ReadOnly: true},
		{Name: "vm_sf", Type: ShareVBoxSF},
	}}
	want := []Share{
		{Name: "data", Type: Share9P},
		{Name: "a=b+c@d.e_f-g", Type: ShareVirtioFS, Tag: "share1", ReadOnly: true},
		{Name: "vm_sf", Type: ShareVBoxSF},
	}
	carried := 0
	for _, k := range delivery.Kinds() {
		var disc bytes.Buffer
		err := delivery.WriteISO(t.Context(), &disc, k, []byte("#!/bin/sh\n"), sent)
		if k.Name == "vsphere" || k.Name == "azure" {
			if err == nil || !strings.Contains(err.Error(), "no place") {
				t.Errorf("%s: %v, want a refusal", k.Name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
			continue
		}
		image, err := iso9660.Open(bytes.NewReader(disc.Bytes()), int64(disc.Len()), iso9660.Auto)
		if err != nil {
			t.Fatal(err)
		}
		got, err := FindLocal(t.Context(), Env{Devices: []Device{iso("sr0", k.Label)}, Mounter: opened{image}})
		if diff := cmp.Diff(want, got.Meta.Shares); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", k.Name, err, diff)
		}
		carried++
	}
	if carried != 3 {
		t.Errorf("%d layouts carry shares, want 3", carried)
	}
}

func TestShares(t *testing.T) {
	data := Share{Name: "data", Type: Share9P}
	for text, want := range map[string][]Share{
		"":                              nil,
		"[]":                            nil,
		"data":                          nil,
		`{"name":"data","type":"9p"}`:   nil,
		`[{"name":"data","type":"9p"}]`: {data},
		`[{"name":"data","type":"9p","new":"field"}]`:                                {data},
		`[{"name":"data","type":"9p","tag":"data"}]`:                                 {data},
		`[{"name":"data","type":"9p"},{"name":"data","type":"9p","ro":true}]`:        {data},
		`[{"name":"data","type":"nfs"},{"name":"data","type":"9p"}]`:                 {data},
		`[{"name":"../x","type":"9p"},{"name":".x","type":"9p"},{"type":"9p"}]`:      nil,
		`[{"name":"a/b","type":"9p"},{"name":"a b","type":"9p"}]`:                    nil,
		`[{"name":"a\nb","type":"9p"},{"name":"ü","type":"9p"}]`:                     nil,
		`[{"name":"x","type":"9p","tag":"a,uid=0"}]`:                                 nil,
		`[{"name":"` + strings.Repeat("x", 65) + `","type":"9p"}]`:                   nil,
		`[{"name":"data","type":"9p"}` + strings.Repeat(" ", maxShareNames) + `]`:    nil,
		`[{"name":"` + strings.Repeat("x", 64) + `","type":"vboxsf","tag":"a=b@c"}]`: {{Name: strings.Repeat("x", 64), Type: ShareVBoxSF, Tag: "a=b@c"}},
	} {
		if diff := cmp.Diff(want, readShares(text)); diff != "" {
			t.Errorf("readShares(%.60q) (-want +got):\n%s", text, diff)
		}
	}
	many := make([]Share, 0, 100)
	for i := range 100 {
		many = append(many, Share{Name: "s" + strings.Repeat("x", i%50) + string(rune('a'+i/50)), Type: Share9P})
	}
	if got := len(CleanShares(many)); got != maxShares {
		t.Errorf("CleanShares of %d = %d, want %d", len(many), got, maxShares)
	}
}

// TestSharesByHand reads what people write for a server of OpenStack and a seed
// of NoCloud.
func TestSharesByHand(t *testing.T) {
	want := []Share{{Name: "data", Type: ShareVirtioFS}}
	got, err := openStackMeta([]byte(`{"uuid":"u","meta":{"other":1,"mica_shares":"[{\"name\":\"data\",\"type\":\"virtiofs\"}]"}}`))
	if diff := cmp.Diff(want, got.Shares); diff != "" || err != nil {
		t.Errorf("OpenStack: %v (-want +got):\n%s", err, diff)
	}
	if got, err := openStackMeta([]byte(`{"uuid":"u","meta":"odd"}`)); err != nil || got.InstanceID != "u" || got.Shares != nil {
		t.Errorf("OpenStack, odd properties: %+v, %v; want the rest to count", got, err)
	}
	if diff := cmp.Diff(want, noCloudMeta([]byte("instance-id: i\nmica_shares: '[{\"name\":\"data\",\"type\":\"virtiofs\"}]'\n")).Shares); diff != "" {
		t.Errorf("NoCloud (-want +got):\n%s", diff)
	}
}
