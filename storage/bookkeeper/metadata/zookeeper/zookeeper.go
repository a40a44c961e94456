// Package zookeeper keeps ledger metadata in ZooKeeper, in BookKeeper's own
// layout (HierarchicalLedgerManager).
package zookeeper
