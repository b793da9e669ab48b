<?php
// 使用 Redis Pub/Sub 直接發送 (適合高頻率場景)
$redis = new \Redis();
$redis->connect('redis', 6379);

// 點對點通知
$redis->publish('notification:user:user123', json_encode([
    'type' => 'user',
    'target' => 'user123',
    'event' => [
        'event_type' => 'order.created',
        'payload' => ['order_id' => 'ORD-001', 'amount' => 99.99],
        'priority' => 'High',
    ],
]));

// 頻道通知
$redis->publish('notification:channel:orders', json_encode([
    'type' => 'channel',
    'target' => 'orders',
    'event' => [
        'event_type' => 'order.status_changed',
        'payload' => ['order_id' => 'ORD-001', 'status' => 'shipped'],
    ],
]));

// 廣播
$redis->publish('notification:broadcast', json_encode([
    'type' => 'broadcast',
    'event' => [
        'event_type' => 'system.maintenance',
        'payload' => ['message' => '系統將於 10 分鐘後進行維護'],
    ],
]));
