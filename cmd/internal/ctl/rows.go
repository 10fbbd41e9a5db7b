package ctl

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bhome-bus/bhome/cmd/internal/listing"
	"github.com/bhome-bus/bhome/cmd/internal/tables"
	"github.com/bhome-bus/bhome/node"
)

func (a *app) procsCmd() *cobra.Command {
	return listCmd(a, "procs", "List the processes on the bus", `List the processes that the center knows: the living with their state (online, unresponsive,
detached: alive, but without its socket), and what each holds.`, tables.Procs(time.Now), func(ctx context.Context, n *node.Node) ([]*node.ProcRow, []listing.Extra, error) {
		rows, err := n.Procs(ctx)
		return rows, nil, err
	})
}

func (a *app) msgsCmd() *cobra.Command {
	return listCmd(a, "msgs", "List the message blocks that are granted", `List the blocks that the center has granted: whose, how large, who holds them, since when, on what topic. A node
keeps blocks for its next messages: those have no holder.`, tables.Msgs(), func(ctx context.Context, n *node.Node) ([]*node.MsgRow, []listing.Extra, error) {
		rows, total, err := n.Msgs(ctx)
		if err != nil {
			return nil, nil, err
		}
		return rows, tables.MsgTotals(total), nil
	})
}

func (a *app) topicsCmd() *cobra.Command {
	return listCmd(a, "topics", "List the topics and services", `List the topics that are published or subscribed to, and the services, with who is at each end, messages a second,
how many wait unread, and how many were dropped.`, tables.Topics(), func(ctx context.Context, n *node.Node) ([]*node.TopicRow, []listing.Extra, error) {
		rows, err := n.Topics(ctx)
		return rows, nil, err
	})
}
