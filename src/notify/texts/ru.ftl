# What a receipt says, in Russian. Amounts, dates and codes arrive formatted.

subject = Квитанция об оплате № { $number }: { $service }, { $amount }
title = Квитанция об оплате
paid = Оплачено
intro = Ваш платёж получен. Пожалуйста, сохраните эту квитанцию.
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
questions = Вопросы? { $operator }, тел. { $phone }, { $email }
not-yours = Если вы не совершали этот платёж, сразу сообщите об этом в свой банк и нам.
