package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// ErrOffline says that this Root reaches no network.
var ErrOffline = errors.New("no network here")

// maxBody bounds what is downloaded.
const maxBody = 16 << 20

// HTTP sends a request and returns the body of a successful answer. What is
// recorded of the address holds neither user nor password nor query.
func (r *Root) HTTP(ctx context.Context, request *http.Request) ([]byte, error) {
	shown := *request.URL
	shown.User, shown.RawQuery, shown.Fragment = nil, "", ""
	r.Note(Action{Kind: KindNetwork, Target: request.Method + " " + shown.String()})
	if r.options.HTTP == nil {
		return nil, ErrOffline
	}
	answer, err := r.options.HTTP.Do(request.WithContext(ctx))
	if err != nil {
		var ue *url.Error // its text has the whole address
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("asking %s: %w", shown.Host, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("asking %s: %w", shown.Host, err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("asking %s: answer is longer than %d MiB", shown.Host, maxBody>>20)
	case answer.StatusCode/100 != 2:
		return nil, fmt.Errorf("asking %s: %s", shown.Host, answer.Status)
	}
	return body, nil
}

// Dial opens a connection.
func (r *Root) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.Note(Action{Kind: KindNetwork, Target: network + " " + address})
	if r.options.Dial == nil {
		return nil, ErrOffline
	}
	return r.options.Dial(ctx, network, address)
}
