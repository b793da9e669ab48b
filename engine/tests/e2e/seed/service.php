<?php
// The deployment guide's NotificationService, its Symfony client replaced by curl that sends what Symfony's `json` option
// sends.
final class HttpClient
{
    public function request(string $method, string $url, array $options): void
    {
        $headers = $options['headers'] + ['Content-Type' => 'application/json', 'Accept' => '*/*'];
        $flags = JSON_HEX_TAG | JSON_HEX_APOS | JSON_HEX_AMP | JSON_HEX_QUOT | JSON_PRESERVE_ZERO_FRACTION;
        $curl = curl_init($url);
        curl_setopt_array($curl, [
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_HTTPHEADER => array_map(fn ($name) => "$name: $headers[$name]", array_keys($headers)),
            CURLOPT_POSTFIELDS => json_encode($options['json'], $flags | JSON_THROW_ON_ERROR),
            CURLOPT_RETURNTRANSFER => true,
        ]);
        $answer = curl_exec($curl);
        $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        if ($status !== 200) {
            fwrite(STDERR, "$status $answer\n");
            exit(1);
        }
        echo json_decode($answer, true, 512, JSON_THROW_ON_ERROR)['delivered_to'], "\n";
    }
}

final class NotificationService
{
    public function __construct(
        private HttpClient $httpClient,
        private string $notificationApiKey,
    ) {}

    public function sendToUser(
        string $userId,
        string $eventType,
        array $payload,
        string $priority = 'Normal'
    ): void {
        $this->httpClient->request('POST', 'http://notification:8081/api/v1/notifications/send', [
            'headers' => [
                'X-API-Key' => $this->notificationApiKey,
                'Content-Type' => 'application/json',
            ],
            'json' => [
                'target_user_id' => $userId,
                'event_type' => $eventType,
                'payload' => $payload,
                'priority' => $priority,
            ],
        ]);
    }

    public function sendWithTemplate(
        string $userId,
        string $templateId,
        array $variables
    ): void {
        $this->httpClient->request('POST', 'http://notification:8081/api/v1/notifications/send', [
            'headers' => [
                'X-API-Key' => $this->notificationApiKey,
            ],
            'json' => [
                'target_user_id' => $userId,
                'template_id' => $templateId,
                'variables' => $variables,
            ],
        ]);
    }

    public function sendToChannel(string $channel, string $eventType, array $payload): void
    {
        $this->httpClient->request('POST', 'http://notification:8081/api/v1/notifications/channel', [
            'headers' => [
                'X-API-Key' => $this->notificationApiKey,
            ],
            'json' => [
                'channel' => $channel,
                'event_type' => $eventType,
                'payload' => $payload,
            ],
        ]);
    }

    public function broadcast(string $eventType, array $payload): void
    {
        $this->httpClient->request('POST', 'http://notification:8081/api/v1/notifications/broadcast', [
            'headers' => [
                'X-API-Key' => $this->notificationApiKey,
            ],
            'json' => [
                'event_type' => $eventType,
                'payload' => $payload,
            ],
        ]);
    }
}

$service = new NotificationService(new HttpClient(), 'NOTIFICATION_API_KEY');
$service->sendToUser('user123', 'order.created', ['order_id' => 'ORD-001', 'amount' => 99.99], 'High');
$service->sendWithTemplate('user123', 'order-shipped', ['order' => 'ORD-001']);
$service->sendToChannel('orders', 'order.status_changed', ['status' => 'shipped', 'total' => 10.0]);
$service->broadcast('system.maintenance', ['message' => '系統將於 10 分鐘後進行維護']);
