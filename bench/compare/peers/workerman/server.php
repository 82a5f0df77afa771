<?php
// Workerman: what `compare` measures. One worker on 127.0.0.1.
//
//     php server.php start SCENARIO PORT PATH
//
// PATH is a project of Composer's that requires workerman/workerman, or Workerman's own sources. It takes
// the event loop that it prefers of those that PHP has: event if the extension is there, else select.

use Workerman\Worker;

[, , $scenario, $port, $path] = $argv;

if (is_file("$path/vendor/autoload.php")) {
    require "$path/vendor/autoload.php";
} else {
    spl_autoload_register(function (string $class) use ($path) {
        $file = "$path/src/" . strtr(substr($class, strlen('Workerman\\')), '\\', '/') . '.php';
        if (str_starts_with($class, 'Workerman\\') && is_file($file)) {
            require $file;
        }
    });
}

$protocol = ['tcp' => 'tcp', 'http' => 'http', 'websocket' => 'websocket', 'broadcast' => 'websocket'][$scenario];
$worker = new Worker("$protocol://127.0.0.1:$port");
$worker->count = 1;
$worker->onMessage = match ($scenario) {
    'http' => fn ($connection, $request) => $connection->send("Hello from Gannet\n"),
    'broadcast' => function ($connection, $data) use ($worker) {
        foreach ($worker->connections as $each) {
            $each->send($data);
        }
    },
    default => fn ($connection, $data) => $connection->send($data),
};
if ($protocol === 'websocket') {
    $worker->onWebSocketConnect = function ($connection) {
        $connection->websocketType = Workerman\Protocols\Websocket::BINARY_TYPE_ARRAYBUFFER;
    };
}

// Its own files stay out of the repository.
Worker::$pidFile = getcwd() . '/workerman.pid';
Worker::$logFile = getcwd() . '/workerman.log';
Worker::$statusFile = getcwd() . '/workerman.status';
Worker::runAll();
