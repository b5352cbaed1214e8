# What receipts and notices say, in Russian. Amounts, dates and codes arrive formatted; days are numbers.

subject = Квитанция об оплате № { $number }: { $service }, { $amount }
subject-again = Копия квитанции об оплате № { $number }: { $service }, { $amount }
title = Квитанция об оплате
paid = Оплачено
intro = Ваш платёж получен. Пожалуйста, сохраните эту квитанцию.
intro-again = На нашем сайте попросили прислать эту квитанцию ещё раз. Это копия: вы заплатили один раз, и больше ничего не списано.
amount = { $amount } { $currency }
currency-kgs = сом

label-number = Номер квитанции
label-paid-at = Дата и время
label-service = Услуга
label-bill = Код платежа
label-applicant = Заявитель
label-amount = Сумма
label-card = Карта
label-authorization = Код авторизации
label-rrn = Номер операции в банке (RRN)
label-payment = Идентификатор платежа

service-passport = Паспорт
service-driving-licence = Водительское удостоверение
service-meken-card = Карта «Мекен»
service-other = Государственная услуга

brand-visa = Visa
brand-mastercard = Mastercard
brand-mir = Мир
brand-unionpay = UnionPay
brand-elcart = Элкарт
brand-other = Банковская карта

online = Открыть квитанцию на сайте
verify = Проверить подлинность квитанции
scan = Наведите на код камеру телефона или откройте страницу:
questions = Вопросы? { $operator }, тел. { $phone }, { $email }
not-yours = Если вы не совершали этот платёж, сразу сообщите об этом в свой банк и нам.

# Short messages, of two segments at most: every letter counts.
sms = Оплачено { $amount }: { $service }. Квитанция { $number }: { $link }
sms-short = Оплачено { $amount }. Квитанция: { $link }

# Notices: what is known, what to do, and what happens to the money.
unknown-subject = Платёж на { $amount } проверяется: пожалуйста, не платите повторно
unknown-title = Мы проверяем ваш платёж
unknown-happened = Мы пока не знаем, прошёл ли ваш платёж на { $amount } по коду { $bill }. Мы уточняем это в банке и сообщим вам результат на этот адрес.
unknown-money = Если платёж не прошёл, деньги с карты не спишутся, а заблокированная на ней сумма снова станет доступна: обычно в течение нескольких дней, самое позднее в течение { $days ->
        [one] { $days } дня
       *[other] { $days } дней
    }. Срок зависит от вашего банка.

failed-subject = Платёж на { $amount } не прошёл: деньги не списаны
failed-title = Деньги не списаны
failed-happened = Ваш платёж на { $amount } по коду { $bill } не прошёл. Деньги с карты не списаны.
declined-happened = Ваш платёж на { $amount } по коду { $bill } отклонён. Деньги с карты не списаны.
failed-money = Если эта сумма заблокирована на карте, она снова станет доступна: обычно в течение нескольких дней, самое позднее в течение { $days ->
        [one] { $days } дня
       *[other] { $days } дней
    }. Срок зависит от вашего банка.

reversed-subject = Платёж на { $amount } отменён: деньги вернутся к вам
reversed-title = Деньги вернутся к вам
reversed-happened = Ваш платёж на { $amount } по коду { $bill } отменён. Деньги, которые были заблокированы на карте или списаны с неё, вернутся к вам.
reversed-money = Деньги обычно возвращаются в течение нескольких дней, самое позднее в течение { $days ->
        [one] { $days } дня
       *[other] { $days } дней
    }. Срок зависит от вашего банка.

advice-wait = Пожалуйста, не платите повторно, пока не получите от нас ответ.
advice-again = Вы можете заплатить ещё раз.
advice-held = По этому коду сейчас проходит другой платёж. Пожалуйста, дождитесь его результата и не платите повторно.
advice-paid = По этому коду уже заплачено. Платить ещё раз не нужно.
advice-closed = По этому коду больше нельзя заплатить: он отозван или его срок истёк. За новым кодом обратитесь в учреждение, которое его выдало.

link-status = Посмотреть платёж на сайте
link-again = Заплатить ещё раз
