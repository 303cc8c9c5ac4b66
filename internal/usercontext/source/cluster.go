package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
)

// ClusterService is the service that pairs the machines of a cluster where the
// context names none.
const ClusterService = "https://cernvm-online.cern.ch"

// MasterPlaceholder stands in the user data of a worker for the address of its
// master.
const MasterPlaceholder = "###MASTER_IP_PLACEHOLDER###"

// Cluster pairs machines that were started with the same pin: the master leaves
// its address with a service, the workers wait for it.
//
// Compat: cernvm-micro: scripts.d/08clustercontext, cluster_contextualization.md.
// Differs: the reply must be an address, since it becomes part of a file that is
// run as root.
type Cluster struct {
	Service string // cvm_service_url; empty is ClusterService
	Pin     string // cvm_cluster_pin
	Master  bool   // cvm_cluster_master
	Address netip.Addr

	// Budget bounds the whole wait; zero is 25 minutes, about what the original
	// takes for its 50 tries.
	Budget time.Duration

	HTTP   *http.Client
	Sleep  func(ctx context.Context, d time.Duration) error // nil waits for real
	Jitter func() time.Duration                             // added to each pause; nil is none
	Waited func(since time.Duration)                        // called before each pause, for the console
	Log    *slog.Logger
}

const (
	clusterBudget = 25 * time.Minute
	clusterPause  = 25 * time.Second
)

// Contextualize does this machine's part. It returns the user data, in which a
// worker's placeholders are replaced; the caller parses it again. Without a pin
// nothing happens.
func (c Cluster) Contextualize(ctx context.Context, userData []byte) ([]byte, error) {
	if c.Pin == "" {
		return userData, nil
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	base, err := url.Parse(c.Service)
	if c.Service == "" {
		base, err = url.Parse(ClusterService)
	}
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fail.New(fail.Usage, "cvm_service_url is %q, which is not an http URL", c.Service).
			Hint("write it as https://host")
	}
	keys := base.JoinPath("api/v1/clusters", url.PathEscape(c.Pin), "keys").String()
	if c.Master {
		return userData, c.publish(ctx, keys)
	}
	master, err := c.await(ctx, keys)
	if err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(userData, []byte(MasterPlaceholder), []byte(master.String())), nil
}

func (c Cluster) publish(ctx context.Context, keys string) error {
	if !c.Address.IsValid() {
		return errors.New("registering as the master of the cluster: this machine has no address")
	}
	body, err := json.Marshal(map[string]string{"key": "master_ip", "value": c.Address.String()})
	if err != nil {
		return err
	}
	return c.repeat(ctx, "registering as the master of the cluster", func() error {
		_, err := c.ask(ctx, http.MethodPost, keys, http.StatusCreated, body)
		return err
	})
}

func (c Cluster) await(ctx context.Context, keys string) (netip.Addr, error) {
	if err := c.repeat(ctx, "waiting for the master of the cluster", func() error {
		_, err := c.ask(ctx, http.MethodGet, keys+"/master_ready", http.StatusOK, nil)
		return err
	}); err != nil {
		return netip.Addr{}, err
	}
	var master netip.Addr
	err := c.repeat(ctx, "asking for the master of the cluster", func() error {
		reply, err := c.ask(ctx, http.MethodGet, keys+"/master_ip", http.StatusOK, nil)
		if err != nil {
			return err
		}
		text := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(string(reply)), "master_ip:"))
		if master, err = netip.ParseAddr(text); err != nil || master.Zone() != "" {
			return fmt.Errorf("the service says %q, which is not an address", text)
		}
		return nil
	})
	return master, err
}

// repeat tries until it works or the budget is used up.
func (c Cluster) repeat(ctx context.Context, what string, try func() error) error {
	budget := c.Budget
	if budget == 0 {
		budget = clusterBudget
	}
	var waited time.Duration
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		pause := clusterPause
		if c.Jitter != nil {
			pause += c.Jitter()
		}
		if waited+pause > budget {
			return fail.New(fail.TimedOut, "%s: no success in %s: %w", what, waited, err).
				Hint("check cvm_cluster_pin: pins expire after 24 hours and are used once").
				Hint("check that this machine reaches the service at cvm_service_url")
		}
		c.Log.Debug("cluster", "step", what, "waited", waited, "error", err)
		if c.Waited != nil {
			c.Waited(waited)
		}
		if err := c.Sleep(ctx, pause); err != nil {
			return err
		}
		waited += pause
	}
}

func (c Cluster) ask(ctx context.Context, method, address string, want int, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/plain")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := c.HTTP
	if client == nil {
		client = NewClient()
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return nil, &status{address, resp.StatusCode}
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxMeta))
}
