package machine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/machine"
)

func TestDiagnose(t *testing.T) {
	event := func(s string) string { return "@mica {" + s + "}\r\n" }
	net := event(`"stage":"network","state":"started"`)
	done := event(`"stage":"network","state":"done"`) + event(`"stage":"handover","state":"done"`)
	applied := done + event(`"stage":"plugin","state":"warned","detail":"no name","facts":{"plugin":"hostname"}`) + event(`"stage":"apply","state":"done"`)
	for name, tc := range map[string]struct {
		state   machine.State
		log     string
		after   time.Duration
		verdict machine.Verdict
		stage   string
		cause   string
		remedy  string
	}{
		"healthy":           {machine.Running, applied, time.Hour, machine.Healthy, "apply", "the context was applied", "plugin hostname: no name"},
		"failed stage":      {machine.Running, net + event(`"stage":"disk","state":"failed","detail":"no disk fits","remedy":"give it a larger one"`), time.Minute, machine.Broken, "disk", "no disk fits", "give it a larger one"},
		"without reason":    {machine.Running, event(`"stage":"disk","state":"failed"`), time.Minute, machine.Broken, "disk", "no reason", "logs --raw m"},
		"failed, then off":  {machine.Stopped, event(`"stage":"repository","state":"failed","detail":"no server answers"`), time.Minute, machine.Broken, "repository", "no server answers", "logs"},
		"panic":             {machine.Running, "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n", time.Minute, machine.Broken, "kernel", "damaged: Kernel panic", "fetch or build"},
		"killed init":       {machine.Running, net + "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200\r\n", time.Minute, machine.Broken, "boot", "exitcode=0x00000200", "mica report m"},
		"memory":            {machine.Running, "Out of memory: Killed process 1 (x)", time.Minute, machine.Broken, "system", "too little memory", "mica resize m --memory"},
		"disk errors":       {machine.Running, "blk_update_request: I/O error, dev vda, sector 0", time.Minute, machine.Broken, "disk", "full", "doctor"},
		"emergency":         {machine.Running, done + "You are in emergency mode. After logging in", time.Minute, machine.Broken, "system", "gave up", "mica console m"},
		"crashed":           {machine.Crashed, net, time.Minute, machine.Broken, "network", "virtual processor stopped", "--accel tcg"},
		"in a stage":        {machine.Running, net, 30 * time.Second, machine.Booting, "network", "stage network has not ended; it was switched on 30s ago", "--follow m"},
		"slow":              {machine.Running, net, time.Hour, machine.Slow, "network", "1h0m0s", "--follow m"},
		"system starts":     {machine.Running, done, 30 * time.Second, machine.Booting, "apply", "context is not applied", ""},
		"silent":            {machine.Running, "", 5 * time.Second, machine.Booting, "", "said nothing", ""},
		"silent for long":   {machine.Running, " \r\n", 5 * time.Minute, machine.Slow, "", "said nothing", "boot image"},
		"kernel":            {machine.Running, "Linux version 6\r\n", 5 * time.Second, machine.Booting, "", "the kernel starts", ""},
		"paused":            {machine.Paused, net, 5 * time.Second, machine.Booting, "network", "is paused", "mica resume m"},
		"saved":             {machine.Saved, net, time.Minute, machine.Inactive, "network", "it was saved", "mica start m"},
		"off in a stage":    {machine.Stopped, net, time.Minute, machine.Inactive, "network", "in the middle of stage network", "mica start m"},
		"off when all done": {machine.Stopped, applied, time.Minute, machine.Inactive, "apply", "after its context had been applied", "mica start m"},
		"cut off":           {machine.Stopped, event(`"stage":"network","state":"done"`), time.Minute, machine.Inactive, "", "before its context was applied", "mica start m"},
	} {
		now := time.Now()
		m := machine.Machine{Name: "m", State: tc.state, Record: &machine.Record{Started: now.Add(-tc.after)}}
		d := machine.Diagnose(m, []byte(tc.log), now)
		if d.Verdict != tc.verdict || d.Stage != tc.stage || !strings.Contains(d.Cause, tc.cause) || !strings.Contains(strings.Join(d.Remedy, "\n"), tc.remedy) {
			t.Errorf("%s: diagnosis = %+v, want %s in stage %q because of %q, remedy %q", name, d, tc.verdict, tc.stage, tc.cause, tc.remedy)
		}
	}
}
